"""Which gateway the commands speak to: what the environment names, else the one that `kifiya up` started last."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NoReturn

import typer

from ops.local import state
from ops.local.state import Running

if TYPE_CHECKING:
    from schemas.seal import Seals

__all__ = ["Running", "fail", "find", "need", "seals"]

_VARIABLES: Final = {
    "ingress": "INGRESS_URL", "simulator": "SIMULATOR_URL", "kafka": "KAFKA_BOOTSTRAP", "redis": "REDIS_URL",
    "kafka_dialect": "KAFKA_DIALECT", "postgres": "DATABASE_URL", "lanes": "LANES", "retry_tiers": "RETRY_TIERS",
    "merchant_id": "KIFIYA_MERCHANT", "api_key": "KIFIYA_API_KEY",
}  # fmt: skip


def find() -> Running:
    """The gateway that commands speak to. The environment's addresses win over the state file's."""
    try:
        found = state.read()
    except (OSError, ValueError) as error:
        fail(f"{state.state_file()} cannot be read ({type(error).__name__}): remove it and run kifiya up again")
    for name, variable in _VARIABLES.items():
        if os.environ.get(variable):
            found[name] = os.environ[variable]
            if name == "kafka" and "KAFKA_DIALECT" not in os.environ:
                found["kafka_dialect"] = "apache"
    return Running(**{name: value for name, value in found.items() if name in Running.__slots__})


def need(*names: str) -> Running:
    """The gateway, with these addresses known. Ends the command with one line that says what to do."""
    running = find()
    for name in names:
        if not getattr(running, name):
            fail(f"no gateway is running here: start one with `kifiya up`, or set {_VARIABLES[name]}")
    return running


def seals(running: Running) -> Seals | None:
    """What seals commands: under COMMAND_SECRET, else under the secret of the gateway that `kifiya up` runs here."""
    from schemas import seal  # noqa: PLC0415 - needed here only

    try:
        return seal.parse(os.environ.get("COMMAND_SECRET") or (state.command_secret() if running.supervisor else ""))
    except (OSError, ValueError) as error:
        fail(f"COMMAND_SECRET: {error}")


def fail(message: str, status: int = 1) -> NoReturn:
    """End the command with one line on stderr and a status other than 0."""
    typer.echo(f"kifiya: {message}", err=True)
    raise typer.Exit(status)
