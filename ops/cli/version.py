"""``kifiya version``."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Final

import typer

_STANDS_ON: Final = ("faust-streaming", "aiokafka", "fastapi", "asyncpg", "redis", "fastavro")


def version() -> None:
    """Print the versions of the gateway and of what it stands on."""
    typer.echo(f"kifiya-payment-gateway {metadata.version('kifiya-payment-gateway')}")
    typer.echo(f"python {platform.python_version()}")
    for name in _STANDS_ON:
        typer.echo(f"{name} {metadata.version(name)}")
