"""What the commands take for this gateway's lanes, tiers and topics: the running gateway's, else the environment's."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from ops.cli.state import Running, fail

if TYPE_CHECKING:
    from schemas.lanes import Lane
    from schemas.topics import Topic

T = TypeVar("T")

DEFAULT_LANES: Final = '{"simulator": {"provider": "simulator", "limit": 2}}'
MOST_PARTITIONS: Final = 1024


def lanes(running: Running) -> dict[str, Lane]:
    """The lanes by name; the first one is the default."""
    from schemas.lanes import parse_lanes  # noqa: PLC0415 - needed here only

    return _or_fail(lambda: parse_lanes(running.lanes or DEFAULT_LANES))


def tiers(running: Running) -> tuple[str, ...]:
    """The retry tiers, shortest first."""
    return _or_fail(lambda: read_tiers(running))


def topics_of(running: Running, *, commands: int | None = None, lane: int | None = None) -> list[Topic]:
    """The topics that this gateway declares; partition counts from the arguments, else from the environment."""
    return _or_fail(lambda: read_topics(running, commands=commands, lane=lane))


def read_topics(running: Running, *, commands: int | None = None, lane: int | None = None) -> list[Topic]:
    """As :func:`topics_of`. Raises ValueError that names the variable which is wrong."""
    from schemas import topics  # noqa: PLC0415 - needed here only
    from schemas.lanes import parse_lanes  # noqa: PLC0415

    return topics.declare(
        parse_lanes(running.lanes or DEFAULT_LANES),
        tiers=read_tiers(running),
        command_partitions=commands or _count("COMMAND_PARTITIONS", 12),
        lane_partitions=lane or _count("LANE_PARTITIONS", 8),
    )


def read_tiers(running: Running) -> tuple[str, ...]:
    """As :func:`tiers`. Raises ValueError."""
    from schemas import topics  # noqa: PLC0415 - needed here only

    if not running.retry_tiers:
        return topics.DEFAULT_TIERS
    names = tuple(name.strip() for name in running.retry_tiers.split(",") if name.strip())
    if not names or list(names) != sorted(names, key=topics.tier_ms):
        raise ValueError("RETRY_TIERS must list at least one delay, shortest first, as in 1s,5s,1m")
    return names


def _count(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable) or str(otherwise)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_PARTITIONS:
        raise ValueError(f"{variable} must be a whole number from 1 to {MOST_PARTITIONS}")
    return int(text)


def _or_fail(read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        fail(str(error))
