"""``python -m streams intake|dispatch|delay``: one role, one process."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Coroutine
from typing import Any

from aiokafka.errors import KafkaError
from pydantic import ValidationError

from ops import failpoints
from ops.telemetry import configure_logging
from streams.settings import StreamSettings


def _settings() -> StreamSettings:
    try:
        settings = StreamSettings()
        settings.lane_table()
        settings.tiers()
        settings.weights()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])).upper()
        raise SystemExit(f"streams: {name + ': ' if name else ''}{first['msg']}") from None
    except ValueError as error:
        raise SystemExit(f"streams: {error}") from None
    return settings


def _intake(settings: StreamSettings) -> Coroutine[Any, Any, None]:
    """Intake, not started. Raises SystemExit that says what is missing."""
    from streams import intake  # noqa: PLC0415 - each role loads its own libraries only

    try:
        settings.admission()
    except ValueError as error:
        raise SystemExit(f"streams: {error}") from None
    return intake.run(settings)


def _dispatch(settings: StreamSettings, name: str) -> Coroutine[Any, Any, None]:
    """Dispatch of this lane, not started. Raises SystemExit that says what is missing."""
    from streams import lane, providers  # noqa: PLC0415 - each role loads its own libraries only

    lanes = settings.lane_table()
    if name not in lanes:
        raise SystemExit(f"streams: lane {name!r} is not one of LANES: {', '.join(lanes)}")
    if not settings.redis_url:
        raise SystemExit("streams: REDIS_URL: is missing; the limiter lives there")
    try:
        providers.open_provider(lanes[name])
    except ValueError as error:
        raise SystemExit(f"streams: {error}") from None
    return lane.run(settings, lane=name)


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
    running: Coroutine[Any, Any, None]
    if arguments.role == "intake":
        running = _intake(settings)
    elif arguments.role == "delay":
        from streams import delay  # noqa: PLC0415

        running = delay.run(settings)
    else:
        running = _dispatch(settings, arguments.lane)
    try:
        failpoints.arm(settings.failpoints)
    except ValueError as error:
        running.close()
        raise SystemExit(f"streams: FAILPOINTS: {error}") from None
    try:
        asyncio.run(running)
    except KafkaError as error:
        raise SystemExit(f"streams: Kafka at {settings.kafka_bootstrap}: {type(error).__name__}") from None


if __name__ == "__main__":
    main()
