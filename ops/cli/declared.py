"""What the commands take for this gateway's lanes, tiers and topics: the running gateway's, else the environment's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ops.cli.state import Running, fail

if TYPE_CHECKING:
    from schemas.lanes import Lane
    from schemas.topics import Topic

DEFAULT_LANES: Final = '{"simulator": {"provider": "simulator", "limit": 2}}'
MOST_PARTITIONS: Final = 1024


def lanes(running: Running) -> dict[str, Lane]:
    """The lanes by name; the first one is the default."""
    from schemas.lanes import parse_lanes  # noqa: PLC0415 - needed here only

    try:
        return parse_lanes(running.lanes or DEFAULT_LANES)
    except ValueError as error:
        fail(str(error))


def tiers(running: Running) -> tuple[str, ...]:
    """The retry tiers, shortest first."""
    from schemas import topics  # noqa: PLC0415 - needed here only

    if not running.retry_tiers:
        return topics.DEFAULT_TIERS
    names = tuple(name.strip() for name in running.retry_tiers.split(",") if name.strip())
    try:
        if not names or list(names) != sorted(names, key=topics.tier_ms):
            fail("RETRY_TIERS must list at least one delay, shortest first, as in 1s,5s,1m")
    except ValueError as error:
        fail(str(error))
    return names


def topics_of(running: Running, *, commands: int | None = None, lane: int | None = None) -> list[Topic]:
    """The topics that this gateway declares; partition counts from the arguments, else from the environment."""
    from schemas import topics  # noqa: PLC0415 - needed here only

    return topics.declare(
        lanes(running),
        tiers=tiers(running),
        command_partitions=commands or _count("COMMAND_PARTITIONS", 12),
        lane_partitions=lane or _count("LANE_PARTITIONS", 8),
    )


def _count(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable) or str(otherwise)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_PARTITIONS:
        fail(f"{variable} must be a whole number from 1 to {MOST_PARTITIONS}")
    return int(text)
