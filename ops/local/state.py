"""What `kifiya up` has started, in a file: other commands find the gateway by it."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ops.kafka.clients import KafkaSettings

CHECKOUT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running gateway, as `kifiya up --json` prints it. ``pids``: role to process id; ``""``: not known."""

    ingress: str = ""
    simulator: str = ""
    kafka: str = ""
    kafka_dialect: Literal["apache", "tansu"] = "apache"
    redis: str = ""
    postgres: str = ""
    merchant_id: str = "shop"
    api_key: str = ""
    lanes: str = ""
    retry_tiers: str = ""
    supervisor: int = 0
    pids: dict[str, int] = field(default_factory=dict)
    admin: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> KafkaSettings:
        """How to reach Kafka."""
        return KafkaSettings(self.kafka, self.kafka_dialect)


def state_folder() -> Path:
    """The checkout's ``.kifiya``, or the user's state folder where the gateway is installed."""
    if (CHECKOUT / "pyproject.toml").exists() and os.access(CHECKOUT, os.W_OK):
        return CHECKOUT / ".kifiya"
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "kifiya"


def state_file() -> Path:
    """Where `kifiya up` writes what it started: ``KIFIYA_STATE``, else in the state folder."""
    named = os.environ.get("KIFIYA_STATE")
    return Path(named) if named else state_folder() / "state.json"


def write(running: Running) -> None:
    """Replace the state file in one step; it holds passwords, so only its owner may read it."""
    path = state_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as out:
        json.dump(asdict(running), out)
    Path(part).replace(path)


def command_secret() -> str:
    """The secret of the ingress's seals under `kifiya up`: in a file beside the state file, for its owner to read.

    Made where it is missing, and kept: what is sealed now may be read by intake after the next start. Raises OSError.
    """
    path = state_file().with_suffix(".secret")
    with suppress(FileNotFoundError):
        return path.read_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as out:
        out.write(secrets.token_urlsafe(32))
    with suppress(FileExistsError):
        os.link(part, path)  # whole or not at all, and only one of two that start at once
    Path(part).unlink()
    return path.read_text()


def clear(supervisor: int) -> None:
    """The gateway of this supervisor is gone; another one's file stays."""
    if read().get("supervisor") == supervisor:
        state_file().unlink(missing_ok=True)


def read() -> dict[str, Any]:
    """The fields of the gateway that runs, empty where none does. Raises OSError, ValueError for an unreadable file."""
    try:
        found = json.loads(state_file().read_text())
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict) or not _alive(found.get("supervisor")):
        return {}
    return found


def _alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
