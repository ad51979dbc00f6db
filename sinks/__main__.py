"""``python -m sinks``: the sink, one process. ``python -m sinks migrate``: bring the tables up to date and end."""

from __future__ import annotations

import argparse
import asyncio
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from ops import failpoints
from ops.telemetry import configure_logging
from sinks.settings import MigrateSettings, SinkSettings

S = TypeVar("S", bound=BaseSettings)


def _read(kind: type[S]) -> S:
    try:
        return kind()
    except ValidationError as error:
        first = error.errors()[0]
        raise SystemExit(f"sinks: {'.'.join(map(str, first['loc'])).upper()}: {first['msg']}") from error


def main() -> None:
    """Parse the command, read the settings, run until SIGTERM."""
    parser = argparse.ArgumentParser(prog="sinks", description="Write events and dead letters to PostgreSQL.")
    parser.add_argument("command", nargs="?", choices=["run", "migrate"], default="run")
    if parser.parse_args().command == "migrate":
        from sinks import migrate  # noqa: PLC0415 - each command loads its own libraries only

        configure_logging("migrate")
        try:
            migrate.upgrade(_read(MigrateSettings).database_url)
        except migrate.CannotMigrate as error:
            raise SystemExit(f"sinks: DATABASE_URL: {error}") from error
        return
    settings = _read(SinkSettings)
    configure_logging("sink", settings.log_level)
    from sinks import sink  # noqa: PLC0415

    try:
        failpoints.arm(settings.failpoints)
    except ValueError as error:
        raise SystemExit(f"sinks: FAILPOINTS: {error}") from None
    asyncio.run(sink.run(settings))


if __name__ == "__main__":
    main()
