"""The gateway's tables, made in this process: one of its own would take a second of processor for nothing."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from sinks.migrate import upgrade

_ONE: Final = threading.Lock()
"""Alembic knows one migration at a time."""


async def migrate(url: str) -> None:
    """Bring a database's tables up to date. Raises CannotMigrate."""
    await asyncio.to_thread(_migrate, url)


def _migrate(url: str) -> None:
    with _ONE:
        upgrade(url)
