"""The limiter: strict on the provider's clock, coordinated over all workers."""

from __future__ import annotations

import uuid

from schemas.lanes import Lane
from streams.limiter.authority import Authority, Store, pace
from streams.limiter.control import ControlLog
from streams.limiter.memory import MemoryLimiter
from streams.limiter.port import Limiter, Permit
from streams.limiter.postgres import PostgresLimiter
from streams.limiter.redis import RedisLimiter
from streams.limiter.switching import SwitchingLimiter

__all__ = [
    "Limiter",
    "MemoryLimiter",
    "Permit",
    "PostgresLimiter",
    "RedisLimiter",
    "SwitchingLimiter",
    "open_limiter",
    "open_switching",
]


def open_limiter(redis_url: str, lane: Lane) -> RedisLimiter:
    """The limiter of a lane; use it as an async context manager."""
    return RedisLimiter(redis_url, lane)


def open_switching(
    redis_url: str, database_url: str, lane: Lane, log: ControlLog, *, leaves_redis: bool
) -> SwitchingLimiter:
    """The limiter of a lane that moves to PostgreSQL while Redis is away; its ``watch`` must run beside it.

    ``leaves_redis``: whether it proposes that itself, or only goes along with the others.
    """
    return SwitchingLimiter(
        {Store.REDIS: RedisLimiter(redis_url, lane), Store.POSTGRES: PostgresLimiter(database_url, lane)},
        log,
        Authority(
            lane.name, uuid.uuid4().hex, pace((lane.window_ms + lane.guard_ms) / 1000), leaves_redis=leaves_redis
        ),
    )
