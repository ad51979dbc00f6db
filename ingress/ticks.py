"""Requests that come one after another go on together: what they ask of Redis, PostgreSQL and Kafka then shares rounds.

A round trip of its own for each would cost a request more processor time than all the rest of its work.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

GAP_S: Final = 0.003


class Ticks:
    """About ``gap_s`` lies between two ticks, as the loop keeps time; one that comes alone makes its own, at once.

    The timer is set once, by the first that waits, so nobody waits longer than a gap, however many come.
    """

    def __init__(self, gap_s: float = GAP_S) -> None:
        self._gap_s = gap_s
        self._waiting: list[asyncio.Future[None]] = []
        self._last = -math.inf

    async def turn(self) -> None:
        """Return at the next tick, at most ``gap_s`` from now."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            early_s = self._last + self._gap_s - loop.time()
            if early_s <= 0:
                self._last = loop.time()
                return
            loop.call_later(early_s, self._tick)
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _tick(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._last = asyncio.get_running_loop().time()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
