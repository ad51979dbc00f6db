"""Redis adapter of the limiter: one Lua script, the server's clock, permits that know when they are too old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from schemas.lanes import Lane
from streams.errors import LimiterUnavailable
from streams.limiter.clock import Reading, Steadiness, permit_for
from streams.limiter.port import Permit

GRANTED = Counter("kifiya_permits_granted", "Permits granted.", ["lane"])
DISCARDED = Counter("kifiya_permits_discarded", "Slots spent and not used, by reason.", ["lane", "reason"])

SCRIPT: Final = (Path(__file__).parent / "acquire.lua").read_text()
ANSWER_S: Final = 0.5
LOOK_S: Final = 0.25
PATIENCE_S: Final = 2.0
WATCH_S: Final = 2.0


class RedisLimiter:
    """Limiter of one lane over all its workers, on the clock of one Redis server."""

    def __init__(
        self, url: str, lane: Lane, *, client: Redis | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._client: Redis = client or Redis.from_url(
            url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=False,
            max_connections=4,
        )
        self._lane = lane
        self._key = f"limiter:{{{lane.name}}}"
        self._guard_s = lane.guard_ms / 1000
        self._window_us = (lane.window_ms + lane.guard_ms) * 1000
        self._sha = ""
        self._steadiness = Steadiness(self._guard_s, 2 * self._window_us / 1e6)
        self._there = False

    @property
    def healthy(self) -> bool:
        """Whether the store answered last time, and quickly enough for its clock to be known."""
        return self._there and self._steadiness.wait_s(self._clock()) < float("inf")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def watch(self) -> None:
        """Read the store's clock every two seconds: whether it is there, and whether it is steady; never returns."""
        while True:
            with suppress(LimiterUnavailable):
                await self._look()
            await asyncio.sleep(WATCH_S)

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        """See the port. Waits between questions as long as the store says, so the load on Redis is bounded."""
        while True:
            await self._steady()
            granted, number, reading = await self._ask(lead_s)
            self._steadiness.read(reading)
            if self._steadiness.wait_s(self._clock()) > 0:
                DISCARDED.labels(self._lane.name, "clock-jump").inc()
            elif not granted:
                await asyncio.sleep(number / 1e6)
            elif (permit := permit_for(number, reading, self._guard_s)) is None:
                DISCARDED.labels(self._lane.name, "slow-answer").inc()
            else:
                GRANTED.labels(self._lane.name).inc()
                return permit

    async def _steady(self) -> None:
        while (wait_s := self._steadiness.wait_s(self._clock())) > 0:
            await self._look()
            await asyncio.sleep(min(wait_s, LOOK_S))

    async def _look(self) -> None:
        asked_at = self._clock()
        seconds, micros = await self._answer(self._client.time())
        self._steadiness.read(Reading(seconds * 1_000_000 + micros, asked_at, self._clock()))

    async def _answer(self, asking: Awaitable[Any]) -> Any:
        """What the store says. Raises LimiterUnavailable within two seconds."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await asking
        except (RedisError, OSError, TimeoutError) as error:
            self._there = False
            raise LimiterUnavailable(type(error).__name__) from error
        self._there = True
        return found

    async def _ask(self, lead_s: float) -> tuple[bool, int, Reading]:
        asked_at = self._clock()
        granted, number, now_us, _ = await self._answer(self._run(lead_s))
        return granted == 1, int(number), Reading(int(now_us), asked_at, self._clock())

    async def _run(self, lead_s: float) -> Any:
        arguments = (self._lane.limit, self._window_us, int(lead_s * 1e6))
        if self._sha:
            try:
                return await self._client.evalsha(self._sha, 1, self._key, *arguments)
            except NoScriptError:
                self._sha = ""
        self._sha = await self._client.script_load(SCRIPT)
        return await self._client.evalsha(self._sha, 1, self._key, *arguments)
