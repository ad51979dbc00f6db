"""``python -m streams intake|dispatch|delay``: one role, one process."""

from __future__ import annotations

import argparse
import asyncio
import sys

from pydantic import ValidationError

from ops.telemetry import configure_logging
from streams.settings import StreamSettings


def _settings() -> StreamSettings:
    try:
        settings = StreamSettings()
        settings.lane_table()
        settings.tiers()
    except ValidationError as error:
        first = error.errors()[0]
        raise SystemExit(f"streams: {'.'.join(map(str, first['loc'])).upper()}: {first['msg']}") from error
    except ValueError as error:
        raise SystemExit(f"streams: {error}") from error
    return settings


def main() -> None:
    """Parse the role, read the settings, run until SIGTERM."""
    parser = argparse.ArgumentParser(prog="streams", description="Run one stream role of the gateway.")
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("intake", help="validate, deduplicate and route commands")
    dispatch = roles.add_parser("dispatch", help="call the provider of one lane")
    dispatch.add_argument("--lane", required=True, help="name of the lane, one of LANES")
    roles.add_parser("delay", help="hold retries until they are due")
    arguments = parser.parse_args()
    settings = _settings()
    configure_logging(arguments.role, settings.log_level)
    if arguments.role == "intake":
        from streams import intake  # noqa: PLC0415 - each role loads its own libraries only

        asyncio.run(intake.run(settings))
    elif arguments.role == "delay":
        from streams import delay  # noqa: PLC0415

        asyncio.run(delay.run(settings))
    else:
        if arguments.lane not in settings.lane_table():
            sys.exit(f"streams: lane {arguments.lane!r} is not one of LANES: {', '.join(settings.lane_table())}")
        from streams import lane as stage  # noqa: PLC0415

        asyncio.run(stage.run(settings, lane=arguments.lane))


if __name__ == "__main__":
    main()
