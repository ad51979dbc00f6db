"""What the limiters over a server have in common: its clock is watched, and a permit knows when it is too old."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import ClassVar, Final, Self, TypeVar

from prometheus_client import Counter

from schemas.lanes import Lane
from streams.errors import LimiterUnavailable
from streams.limiter.clock import Reading, Steadiness, permit_for
from streams.limiter.port import Permit

GRANTED = Counter("kifiya_permits_granted", "Permits granted.", ["lane"])
DISCARDED = Counter("kifiya_permits_discarded", "Slots spent and not used, by reason.", ["lane", "reason"])

LOOK_S: Final = 0.25
PATIENCE_S: Final = 2.0
WATCH_S: Final = 2.0

T = TypeVar("T")


class StoreLimiter(ABC):
    """Limiter of one lane over all its workers, on the clock of one server that keeps the sliding log."""

    away: ClassVar[tuple[type[Exception], ...]]
    """What the server's client raises where it does not answer, beside OSError and TimeoutError."""

    def __init__(self, lane: Lane, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lane = lane
        self._guard_s = lane.guard_ms / 1000
        self._window_us = (lane.window_ms + lane.guard_ms) * 1000
        self._steadiness = Steadiness(self._guard_s, 2 * self._window_us / 1e6)
        self._there = False
        self._away: tuple[type[Exception], ...] = (*self.away, OSError, TimeoutError)

    @abstractmethod
    async def _time_us(self) -> int:
        """The server's time, epoch microseconds."""

    @abstractmethod
    async def _reserve(self, lead_us: int) -> tuple[bool, int, int]:
        """Reserve a slot: whether it was granted, the slot or how long to wait, the server's time; microseconds."""

    @property
    def healthy(self) -> bool:
        """Whether the store answered last time, and quickly enough for its clock to be known."""
        return self._there and self._steadiness.wait_s(self._clock()) < float("inf")

    async def __aenter__(self) -> Self:
        return self

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def watch(self) -> None:
        """Read the store's clock every two seconds: whether it is there, and whether it is steady; never returns."""
        while True:
            with suppress(LimiterUnavailable):
                await self._look()
            await asyncio.sleep(WATCH_S)

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        """See the port. Waits between questions as long as the store says, so the load on it is bounded."""
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
        now_us = await self._answer(self._time_us())
        self._steadiness.read(Reading(now_us, asked_at, self._clock()))

    async def _ask(self, lead_s: float) -> tuple[bool, int, Reading]:
        asked_at = self._clock()
        granted, number, now_us = await self._answer(self._reserve(int(lead_s * 1e6)))
        return granted, number, Reading(now_us, asked_at, self._clock())

    async def _answer(self, asking: Awaitable[T]) -> T:
        """What the store says. Raises LimiterUnavailable within two seconds."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await asking
        except self._away as error:
            self._there = False
            raise LimiterUnavailable(type(error).__name__) from error
        self._there = True
        return found
