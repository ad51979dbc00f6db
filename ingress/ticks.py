"""Requests that come one after another go on together: what they ask of Redis, PostgreSQL and Kafka then shares rounds.

A round trip of its own for each would cost a request more processor time than all the rest of its work. The more come,
the more a round is worth: the gap between two ticks grows with the number that took the last one.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

LEAST_S: Final = 0.002
"""Between two ticks of one request each; as much for each more."""
MOST_S: Final = 0.006
"""At a thousand requests a second six go on together; twelve would wait longer than they save."""


class Ticks:
    """About a gap lies between two ticks, as the loop keeps time; one that comes alone makes its own, at once.

    The timer is set once, by the first that waits, so nobody waits longer than a gap, however many come.
    """

    def __init__(self, least_s: float = LEAST_S, most_s: float = MOST_S) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._gap_s = least_s
        self._waiting: list[asyncio.Future[None]] = []
        self._last = -math.inf

    async def turn(self) -> None:
        """Return at the next tick, at most ``most_s`` from now."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            early_s = self._last + self._gap_s - loop.time()
            if early_s <= 0:
                self._last = loop.time()
                self._gap_s = self._least_s
                return
            loop.call_later(early_s, self._tick)
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _tick(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._last = asyncio.get_running_loop().time()
        there = [waiter for waiter in waiting if not waiter.done()]
        self._gap_s = min(self._most_s, self._least_s * max(1, len(there)))
        for waiter in there:
            waiter.set_result(None)
