"""Which gateway the commands speak to: what the environment names, else the one that `kifiya up` started last."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal, NoReturn, cast

import typer

from ops.kafka.clients import KafkaSettings

CHECKOUT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running gateway, as `kifiya up --json` prints it. ``pids``: role to process id; ``""`` for what is not known."""

    ingress: str = ""
    simulator: str = ""
    kafka: str = ""
    kafka_dialect: Literal["apache", "tansu"] = "apache"
    redis: str = ""
    postgres: str = ""
    merchant_id: str = "shop"
    lanes: str = ""
    retry_tiers: str = ""
    supervisor: int = 0
    pids: dict[str, int] = field(default_factory=dict)
    admin: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> KafkaSettings:
        """How to reach Kafka."""
        return KafkaSettings(self.kafka, self.kafka_dialect)


def state_file() -> Path:
    """Where `kifiya up` writes what it started: ``KIFIYA_STATE``, else the checkout or the user's state folder."""
    named = os.environ.get("KIFIYA_STATE")
    if named:
        return Path(named)
    if (CHECKOUT / "pyproject.toml").exists() and os.access(CHECKOUT, os.W_OK):
        return CHECKOUT / ".kifiya" / "state.json"
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "kifiya" / "state.json"


def write(running: Running) -> None:
    """Replace the state file in one step; it holds passwords, so only its owner may read it."""
    path = state_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as out:
        json.dump(asdict(running), out)
    Path(part).replace(path)


def clear() -> None:
    """The gateway is gone."""
    state_file().unlink(missing_ok=True)


def find() -> Running:
    """The gateway that commands speak to. The environment's addresses win over the state file's."""
    found: dict[str, object] = {}
    try:
        found = json.loads(state_file().read_text())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        fail(f"{state_file()} cannot be read ({type(error).__name__}): remove it and run kifiya up again")
    if not _alive(cast("int", found.get("supervisor", 0))):
        found = {}
    variables = {
        "ingress": "INGRESS_URL", "simulator": "SIMULATOR_URL", "kafka": "KAFKA_BOOTSTRAP", "redis": "REDIS_URL",
        "kafka_dialect": "KAFKA_DIALECT", "postgres": "DATABASE_URL", "lanes": "LANES", "retry_tiers": "RETRY_TIERS",
    }  # fmt: skip
    for name, variable in variables.items():
        if os.environ.get(variable):
            found[name] = os.environ[variable]
            if name == "kafka" and "KAFKA_DIALECT" not in os.environ:
                found["kafka_dialect"] = "apache"
    return Running(**{name: value for name, value in found.items() if name in Running.__slots__})  # type: ignore[arg-type]


def need(*names: str) -> Running:
    """The gateway, with these addresses known. Ends the command with one line that says what to do."""
    running = find()
    variables = {"ingress": "INGRESS_URL", "kafka": "KAFKA_BOOTSTRAP", "redis": "REDIS_URL", "postgres": "DATABASE_URL"}
    for name in names:
        if not getattr(running, name):
            fail(f"no gateway is running here: start one with `kifiya up`, or set {variables.get(name, name.upper())}")
    return running


def fail(message: str, status: int = 1) -> NoReturn:
    """End the command with one line on stderr and a status other than 0."""
    typer.echo(f"kifiya: {message}", err=True)
    raise typer.Exit(status)


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
