"""The turnstile of one dispatch process: one coroutine at a time asks the limiter, in the order of its rota."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streams.queues import Queue, Rota


class Turnstile:
    """Within a queue first come, first served; between queues the rota decides. The turnstile never stands idle.

    A cancelled waiter frees its place. The queues are bounded by the lane's partitions: one task waits in each.
    """

    def __init__(self) -> None:
        self._busy = False
        self._waiting: dict[Queue, deque[asyncio.Future[None]]] = {}
        self._rota = Rota()

    @asynccontextmanager
    async def turn(self, queue: Queue) -> AsyncIterator[None]:
        """Hold the turn."""
        await self._enter(queue)
        try:
            yield
        finally:
            self._pass_on()

    async def _enter(self, queue: Queue) -> None:
        if not self._busy:
            self._busy = True
            self._rota.choose((queue,))
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(queue, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._pass_on()  # the turn was given and nobody took it
            raise

    def _pass_on(self) -> None:
        for line in self._waiting.values():
            while line and line[0].done():
                line.popleft()
        waiting = [queue for queue, line in self._waiting.items() if line]
        if not waiting:
            self._busy = False
            return
        self._waiting[self._rota.choose(waiting)].popleft().set_result(None)
