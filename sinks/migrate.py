"""Migrations: alembic's bookkeeping, plain SQL files. Two that run at once wait for one another; twice is once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config

FOLDER: Final = Path(__file__).parent
LOCK_ID: Final = 0x6B696679
"""Advisory lock that a migration holds."""


def sqlalchemy_url(database_url: str) -> str:
    """The URL as SQLAlchemy's asyncpg dialect wants it."""
    scheme, _, rest = database_url.partition("://")
    if scheme not in {"postgres", "postgresql"} or not rest:
        raise SystemExit("sinks: DATABASE_URL: must be a postgresql:// URL")
    return f"postgresql+asyncpg://{rest}"


def config(database_url: str) -> Config:
    """Alembic's configuration, in code."""
    found = Config()
    found.set_main_option("script_location", str(FOLDER / "migrations"))
    found.attributes["url"] = sqlalchemy_url(database_url)
    return found


def upgrade(database_url: str) -> None:
    """Bring the tables up to date. Raises OSError, TimeoutError where PostgreSQL is away."""
    command.upgrade(config(database_url), "head")


def statements(name: str) -> list[str]:
    """The statements of ``sql/<name>``: each ends with a semicolon at the end of a line."""
    text = (FOLDER / "sql" / name).read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip().strip(";")]
