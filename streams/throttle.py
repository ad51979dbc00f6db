"""The turnstile of one dispatch process: one coroutine at a time asks the limiter; due retries first, within bounds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

DUE_IN_A_ROW: Final = 3


class Turnstile:
    """First come, first served in two queues: due retries go first, but at most three in a row while fresh ones wait.

    A cancelled waiter frees its place. The queues are bounded by the lane's partitions: one task waits in each.
    """

    def __init__(self) -> None:
        self._busy = False
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}
        self._due_in_a_row = 0

    @asynccontextmanager
    async def turn(self, *, due: bool) -> AsyncIterator[None]:
        """Hold the turn."""
        await self._enter(due=due)
        try:
            yield
        finally:
            self._pass_on()

    async def _enter(self, *, due: bool) -> None:
        if not self._busy:
            self._busy = True
            self._count(due=due)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[due].append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._pass_on()  # the turn was given and nobody took it
            raise

    def _count(self, *, due: bool) -> None:
        self._due_in_a_row = self._due_in_a_row + 1 if due else 0

    def _pass_on(self) -> None:
        for queue in self._waiting.values():
            while queue and queue[0].done():
                queue.popleft()
        fresh_turn = self._waiting[False] and self._due_in_a_row >= DUE_IN_A_ROW
        for due in (False, True) if fresh_turn else (True, False):
            queue = self._waiting[due]
            while queue:
                place = queue.popleft()
                if not place.done():
                    self._count(due=due)
                    place.set_result(None)
                    return
        self._busy = False
