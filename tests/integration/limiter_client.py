"""A client of the Redis limiter in a process of its own: uses permits for a while, prints when (monotonic seconds)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

from schemas.lanes import Lane
from streams.errors import LimiterUnavailable, PermitExpired
from streams.limiter.port import Limiter
from streams.limiter.redis import RedisLimiter

SHORT_S = 0.02
"""The last of a wait is slept by itself: the kernel wakes later the longer it was to sleep."""


async def use(limiter: Limiter, until: float, found: list[float]) -> None:
    """Take permits and use them in time, as a call would, until this monotonic moment."""
    while time.monotonic() < until:
        try:
            permit = await limiter.acquire(0.005)
        except LimiterUnavailable:
            await asyncio.sleep(0.02)
            continue
        while (early_s := permit.opens_at - time.monotonic()) > 0:
            await asyncio.sleep(early_s - SHORT_S if early_s > 2 * SHORT_S else early_s)
        now = time.monotonic()
        with contextlib.suppress(PermitExpired):
            permit.check(now)
            found.append(now)


async def _main(url: str, lane: Lane, seconds: float) -> None:
    found: list[float] = []
    async with RedisLimiter(url, lane) as limiter:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 0.5):
                await use(limiter, time.monotonic() + seconds, found)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Lane(**json.loads(sys.argv[2])), float(sys.argv[3])))
