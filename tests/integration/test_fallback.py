"""Real workers whose Redis dies: the lane goes on by PostgreSQL, and back, and never over the limit."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import cast

import pytest

from ops.kafka.admin import create_topics
from ops.kafka.clients import Publisher
from ops.local.ports import free_port
from ops.local.stack import Kind, running
from schemas import topics
from tests.integration.roles import (
    PARTITIONS,
    Provider,
    environment,
    metrics,
    process,
    settings_of,
    simulator,
    task_of,
    to_lane,
    until_ready,
)
from tests.integration.tables import migrate

pytestmark = [pytest.mark.kafka, pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(300)]

LIMIT = 2
TIERS = ("1s", "2s")
AGAIN_S = 30.0
"""Without Redis, until calls flow."""
BACK_S = 45.0
"""With Redis again, until calls flow through it: ten seconds it has to be well, ten the lane rests."""


async def within(seconds: float, what: str, holds: Callable[[], Awaitable[bool]]) -> float:
    """Wait until it holds; how long that took. Raises AssertionError."""
    begun = time.monotonic()
    while not await holds():
        assert time.monotonic() - begun < seconds, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.1)
    return time.monotonic() - begun


async def arrivals(provider: Provider) -> int:
    return len((await provider.observed())["requests"])


async def test_without_redis_calls_flow_again_by_postgresql_and_back_and_never_over_the_limit() -> None:
    lane = f"t{uuid.uuid4().hex[:8]}"
    holds = f'kifiya_limiter_holds{{lane="{lane}",store="%s"}}'
    kind = cast("Kind", os.environ.get("TEST_STACK", "embedded"))
    async with AsyncExitStack() as parts:
        stack = await parts.enter_async_context(running(kind, overrides=False))
        await migrate(stack.database_url)
        await create_topics(settings_of(stack), topics.declare([lane], tiers=TIERS, lane_partitions=PARTITIONS))
        provider = await parts.enter_async_context(simulator(limit=LIMIT))
        publisher = await parts.enter_async_context(Publisher(settings_of(stack)))
        spec = {"provider": "simulator", "url": provider.url, "limit": LIMIT, "window_ms": 1000, "guard_ms": 40}
        env = environment(stack, {lane: spec}, DATABASE_URL=stack.database_url)
        ports = [free_port() for _ in range(2)]
        for port in ports:
            await parts.enter_async_context(process("streams", "dispatch", "--lane", lane, **env, ADMIN_PORT=str(port)))
        for port in ports:
            await until_ready(port)
        tasks = [task_of(lane) for _ in range(LIMIT * 150)]
        await publisher.publish([to_lane(task) for task in tasks])

        async def granting(store: str) -> bool:
            return all([(await metrics(port)).get(holds % store) == 1 for port in ports])

        async def called(since: int, more: int) -> bool:
            return await arrivals(provider) >= since + more

        await within(60, "calls by Redis", lambda: called(0, 10))
        assert await granting("redis")
        redis = stack.processes["redis"]
        redis.kill()
        await asyncio.sleep(2.0)  # a permit that was granted before may be used a window later
        stopped = await arrivals(provider)
        again_s = 2.0 + await within(AGAIN_S - 2.0, "calls by PostgreSQL", lambda: called(stopped, 1))
        assert await granting("postgres")
        await within(20, "calls at the lane's pace", lambda: called(stopped, 16))
        await redis.restart()
        back_s = await within(BACK_S, "Redis grants", lambda: granting("redis"))
        before = await arrivals(provider)
        back_s += await within(AGAIN_S, "calls by Redis again", lambda: called(before, 6))
        assert await granting("redis")
        sys.stderr.write(f"calls again {again_s:.1f} s after Redis died, by Redis {back_s:.1f} s after it came back\n")
        assert await provider.most_in_a_window() <= LIMIT
        charges = await provider.charges()
        assert set(charges.values()) == {1}
        assert len(charges) > 30
