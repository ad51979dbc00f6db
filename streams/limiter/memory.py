"""Memory adapter of the limiter: for one process, and for tests; the same rule on the local clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from schemas.lanes import Lane
from streams.limiter.port import Permit
from streams.limiter.sliding_log import Granted, SlidingLog


class MemoryLimiter:
    """Limiter of one lane inside one process. Starts with an empty log: nobody else can have been granted a slot."""

    healthy = True

    def __init__(self, lane: Lane, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard_s = lane.guard_ms / 1000
        window_us = (lane.window_ms + lane.guard_ms) * 1000
        long_ago = int(clock() * 1e6) - 2 * window_us
        self._log = SlidingLog(lane.limit, window_us, [long_ago] * lane.limit)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def lose(self) -> None:
        """Forget everything, as a flushed Redis would."""
        self._log.slots = None

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        """See the port."""
        while True:
            answer = self._log.reserve(int(self._clock() * 1e6), int(lead_s * 1e6))
            if isinstance(answer, Granted):
                opens_at = answer.slot_us / 1e6
                return Permit(opens_at, opens_at + self._guard_s / 2, answer.slot_us)
            await asyncio.sleep(answer.wait_us / 1e6)
