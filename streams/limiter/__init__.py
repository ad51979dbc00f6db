"""The limiter: strict on the provider's clock, coordinated over all workers."""

from __future__ import annotations

from schemas.lanes import Lane
from streams.limiter.memory import MemoryLimiter
from streams.limiter.port import Limiter, Permit
from streams.limiter.postgres import PostgresLimiter
from streams.limiter.redis import RedisLimiter

__all__ = ["Limiter", "MemoryLimiter", "Permit", "PostgresLimiter", "RedisLimiter", "open_limiter"]


def open_limiter(redis_url: str, lane: Lane) -> RedisLimiter:
    """The limiter of a lane; use it as an async context manager."""
    return RedisLimiter(redis_url, lane)
