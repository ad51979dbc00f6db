"""Apache Kafka as processes of this machine: jars by Maven, KRaft mode, one node or three."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ops.local import child, probes
from ops.local.child import Child, StartError
from ops.local.ports import free_port

POM: Final = Path(__file__).with_name("pom.xml")
HEAP: Final = "-Xmx384m"
FETCH_S: Final = 600.0
ARCHIVE_S: Final = 60.0
_ALONE: Final = {"broker.session.timeout.ms": 2000, "broker.heartbeat.interval.ms": 500}
"""A node that was killed may register anew once its former session is over: by Kafka's own setting after 9 s, in which
no other node could serve, either. The price: a node that stood still for 2 s is fenced, until its next heartbeat."""


def cache_folder() -> Path:
    """Where the jars are kept: the checkout's ``.cache``, or the user's cache where the gateway is installed."""
    checkout = POM.parents[2]
    if (checkout / "pyproject.toml").exists() and os.access(checkout, os.W_OK):
        return checkout / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "kifiya"


def version() -> str:
    """The version of Kafka in the pom."""
    found = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([^<]+)<", POM.read_text())
    if found is None:
        raise StartError(f"no version of kafka_2.13 in {POM}")
    return found[1]


def fetch() -> Path:
    """The folder of Kafka's jars, fetched with Maven on first use. Raises StartError that says what is missing.

    Of several processes that need them at once, one fetches and the others wait for it.
    """
    jars = cache_folder() / f"kafka-{version()}"
    if (jars / ".complete").exists():
        return jars
    if shutil.which("mvn") is None:
        raise StartError("Apache Kafka's jars are fetched with Maven: install maven, or use --stack embedded")
    jars.parent.mkdir(parents=True, exist_ok=True)
    with jars.with_name(f"{jars.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (jars / ".complete").exists():
            _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    part = jars.with_name(f"{jars.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    command = ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={part}"]
    if not os.access(Path.home(), os.W_OK):
        command.append(f"-Dmaven.repo.local={cache_folder() / 'm2'}")
    try:
        done = subprocess.run(command, capture_output=True, timeout=FETCH_S, check=False)  # noqa: S603 - our own command
    except subprocess.TimeoutExpired as error:
        raise StartError(f"Maven did not fetch Apache Kafka's jars within {FETCH_S:g} s") from error
    if done.returncode != 0 or not list(part.glob("kafka_2.13-*.jar")):
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[:800]
        raise StartError(f"Maven could not fetch Apache Kafka's jars: {said}")
    (part / ".complete").touch()
    shutil.rmtree(jars, ignore_errors=True)
    part.rename(jars)


async def prepare(
    folder: Path, nodes: int = 1, *, told: Sequence[int] = (), settings: Mapping[str, object] | None = None
) -> tuple[list[Child], str]:
    """Formatted nodes, not started yet, and their bootstrap ``host:port`` list. Raises StartError.

    ``told``: the port at which each node tells its clients to reach it, where that is not its own; the nodes talk to
    one another past it. ``settings``: what else stands in each node's properties.
    """
    java = shutil.which("java")
    if java is None:
        raise StartError("Apache Kafka needs Java 17 or newer: install openjdk-17-jre-headless or use --stack embedded")
    fetched = (await asyncio.to_thread(fetch)).resolve()
    jars = child.reachable(fetched, folder)
    options = [HEAP, "-XX:+UseSerialGC" if nodes > 1 else "-XX:+UseG1GC"]
    archive = await archived(java, jars) if jars == fetched else None
    if archive is not None:
        options.append(f"-XX:SharedArchiveFile={archive}")
    return await _nodes([java, *options, "-cp", f"{jars}/*"], folder, nodes, told, settings or {})


async def _nodes(
    run: list[str], folder: Path, nodes: int, told: Sequence[int], settings: Mapping[str, object]
) -> tuple[list[Child], str]:
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    ports = [(free_port(), free_port()) for _ in range(nodes)]
    inside = [free_port() for _ in told]
    bootstrap = ",".join(f"127.0.0.1:{port}" for port, _ in ports)
    found: list[Child] = []
    formats: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        for node in range(1, nodes + 1):
            home = folder / f"kafka-{node}"
            home.mkdir()
            config = home / "server.properties"
            lines = _properties(node, ports, home) | dict(settings)
            if told:
                lines |= _told(ports[node - 1], told[node - 1], inside[node - 1])
            config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
            child.give(config)
            child.give(home)
            formats.append(
                group.create_task(
                    # One id in 64 begins with a dash: with "=" it is no option.
                    _run(
                        [*run, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(config)], home
                    )
                )
            )
            found.append(
                Child(
                    "kafka" if nodes == 1 else f"kafka-{node}",
                    [*run, "kafka.Kafka", str(config)],
                    probe=lambda: probes.kafka(bootstrap, brokers=nodes),
                    log=folder / f"kafka-{node}.log",
                )
            )
    return found, bootstrap


async def archived(java: str, jars: Path) -> Path | None:
    """Java's archive of Kafka's classes as loaded (JEP 350): with it a node starts in half the time. Or None.

    It stands beside the jars and is of this Java: of several processes that lack it one makes it, by a node's run. One
    that cannot be made now is tried again at the next start; a Java that makes none leaves an empty one.
    """
    with suppress(OSError, subprocess.SubprocessError, StartError):
        archive = jars / _archive_name(java, jars)
        if not archive.exists() and os.access(jars, os.W_OK):
            with jars.with_name(f"{jars.name}.lock").open("w") as lock:
                await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
                if not archive.exists():
                    await _archive(java, jars, archive)
        return archive if archive.stat().st_size > 0 else None
    return None


def _archive_name(java: str, jars: Path) -> str:
    """Another one for another Java, or another path of the jars: it would refuse the archive."""
    real = Path(java).resolve()
    about = f"{real} {real.stat().st_size} {real.stat().st_mtime_ns} {jars}"
    return f"classes-{hashlib.sha256(about.encode()).hexdigest()[:12]}.jsa"


async def _archive(java: str, jars: Path, archive: Path) -> None:
    """Raises OSError, SubprocessError, StartError: then there is none, whole or in part."""
    folder = child.run_folder("kifiya-classes-")
    try:
        made = folder / archive.name
        try:
            [node], _ = await _nodes(
                [java, HEAP, f"-XX:ArchiveClassesAtExit={made}", "-cp", f"{jars}/*"], folder, 1, (), {}
            )
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        node.spawn()
        try:
            await node.ready(ARCHIVE_S)
        finally:
            await node.stop(ARCHIVE_S)  # it is written at its end
        _install(made, archive)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _install(made: Path, archive: Path) -> None:
    """In place of those before, whole or not at all. Raises OSError."""
    part = archive.with_suffix(".part")
    with part.open("wb") as out:
        if made.exists():
            with made.open("rb") as found:
                shutil.copyfileobj(found, out)
        out.flush()
        os.fsync(out.fileno())  # Java trusts its length
    for old in archive.parent.glob("classes-*.jsa"):
        old.unlink()
    part.rename(archive)


async def _run(command: list[str], home: Path) -> None:
    done = await asyncio.to_thread(child.run_unprivileged, command, home)
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace")[-600:].strip()
        raise StartError(f"Kafka's storage could not be formatted: {said}")


def _properties(node: int, ports: list[tuple[int, int]], home: Path) -> dict[str, object]:
    (client, controller), nodes = ports[node - 1], len(ports)
    voters = ",".join(f"{number}@127.0.0.1:{port}" for number, (_, port) in enumerate(ports, 1))
    safe = min(nodes, 3)
    return {
        "node.id": node,
        "process.roles": "broker,controller",
        "listeners": f"PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{client}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": voters,
        "log.dirs": home / "log",
        "auto.create.topics.enable": "false",
        "default.replication.factor": safe,
        "offsets.topic.replication.factor": safe,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": safe,
        "transaction.state.log.min.isr": max(1, safe - 1),
        "transaction.state.log.num.partitions": 4,
        # Committed offsets are kept as long as the work topics: ten years.
        "offsets.retention.minutes": 5_256_000,
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.dedupe.buffer.size": 16_777_216,
    } | (_ALONE if nodes == 1 else {})


def _told(own: tuple[int, int], told: int, inside: int) -> dict[str, object]:
    """What is different where clients are told another port, and nodes meet at one of their own."""
    listeners = {"PLAINTEXT": own[0], "INSIDE": inside, "CONTROLLER": own[1]}
    return {
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{told},INSIDE://127.0.0.1:{inside}",
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
        "inter.broker.listener.name": "INSIDE",
    }
