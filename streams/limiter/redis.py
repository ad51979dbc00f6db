"""Redis adapter of the limiter: one Lua script, the server's clock, permits that know when they are too old."""

from __future__ import annotations

import asyncio
import time
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
from streams.limiter.clock import Reading, jumped, permit_for
from streams.limiter.port import Permit

GRANTED = Counter("kifiya_permits_granted", "Permits granted.", ["lane"])
DISCARDED = Counter("kifiya_permits_discarded", "Slots spent and not used, by reason.", ["lane", "reason"])

SCRIPT: Final = (Path(__file__).parent / "acquire.lua").read_text()
ANSWER_S: Final = 0.5
REST_S: Final = 1.0
WATCH_S: Final = 2.0
FORGET_READING_S: Final = 60.0


class RedisLimiter:
    """Limiter of one lane over all its workers, on the clock of one Redis server."""

    def __init__(self, url: str, lane: Lane) -> None:
        self._client: Redis = Redis.from_url(
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
        self._last: tuple[str, Reading] | None = None
        self.healthy = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def watch(self) -> None:
        """Ask every two seconds whether the store is there, for health only; never returns."""
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._client.ping()
                self.healthy = True
            except (RedisError, OSError, TimeoutError):
                self.healthy = False
            await asyncio.sleep(WATCH_S)

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        """See the port. Waits between questions as long as the store says, so the load on Redis is bounded."""
        while True:
            granted, number, reading, run_id = await self._ask(lead_s)
            if self._clock_jumped(run_id, reading):
                DISCARDED.labels(self._lane.name, "clock-jump").inc()
                await asyncio.sleep(REST_S)
                continue
            if not granted:
                await asyncio.sleep(number / 1e6)
                continue
            permit = permit_for(number, reading, self._guard_s)
            if permit is None:
                DISCARDED.labels(self._lane.name, "slow-answer").inc()
                continue
            GRANTED.labels(self._lane.name).inc()
            return permit

    def _clock_jumped(self, run_id: str, reading: Reading) -> bool:
        before, self._last = self._last, (run_id, reading)
        if before is None or before[0] != run_id or reading.asked_at - before[1].asked_at > FORGET_READING_S:
            return False
        return jumped(before[1], reading, self._guard_s)

    async def _ask(self, lead_s: float) -> tuple[bool, int, Reading, str]:
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(2.0):
                answer = await self._run(lead_s)
        except (RedisError, OSError, TimeoutError) as error:
            self.healthy = False
            raise LimiterUnavailable(type(error).__name__) from error
        heard_at = time.monotonic()
        self.healthy = True
        granted, number, now_us, run_id = answer
        return granted == 1, int(number), Reading(int(now_us), asked_at, heard_at), run_id.decode()

    async def _run(self, lead_s: float) -> Any:
        arguments = (self._lane.limit, self._window_us, int(lead_s * 1e6))
        if self._sha:
            try:
                return await self._client.evalsha(self._sha, 1, self._key, *arguments)
            except NoScriptError:
                self._sha = ""
        self._sha = await self._client.script_load(SCRIPT)
        return await self._client.evalsha(self._sha, 1, self._key, *arguments)
