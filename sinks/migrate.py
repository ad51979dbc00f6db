"""Migrations: alembic's bookkeeping, plain SQL files. Two that run at once wait for one another; twice is once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

FOLDER: Final = Path(__file__).parent
LOCK_ID: Final = 0x6B696679
"""Advisory lock that a migration holds."""


class CannotMigrate(Exception):
    """PostgreSQL is away, or refuses; the message says what it says, in one line."""


def config(database_url: str) -> Config:
    """Alembic's configuration, in code."""
    found = Config()
    found.set_main_option("script_location", str(FOLDER / "migrations"))
    found.attributes["url"] = database_url
    return found


def upgrade(database_url: str) -> None:
    """Bring the tables up to date, all or nothing. Raises CannotMigrate."""
    try:
        command.upgrade(config(database_url), "head")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        raise CannotMigrate(f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}") from error


def statements(name: str) -> list[str]:
    """The statements of ``sql/<name>``: each ends with a semicolon at the end of a line, outside ``$$``."""
    text = (FOLDER / "sql" / name).read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    found = [""]
    for part in "\n".join(lines).split(";\n"):
        found[-1] += part
        if found[-1].count("$$") % 2:
            found[-1] += ";\n"  # the body of a function goes on
        else:
            found.append("")
    parts = [part.strip().removesuffix(";") for part in found]
    return [part for part in parts if part]
