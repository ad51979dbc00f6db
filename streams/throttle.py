"""The turnstile of one dispatch process: one coroutine at a time asks the limiter, in the order of its rota."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streams.queues import Queue, Rota


class Turnstile:
    """Between queues the rota decides, within one its partitions take turns. The turnstile never stands idle.

    Who comes again goes before all: it had its turn, has told what it is about to do, and came too late to do it. Else
    a slow Kafka would make each of them wait behind all that its partition has in hand, longer than it may.

    A cancelled waiter frees its place. The queues are bounded by what a lane's partitions have in hand.
    """

    def __init__(self) -> None:
        self._busy = False
        self._waiting: dict[Queue, dict[int, deque[asyncio.Future[None]]]] = {}
        """By queue and partition; first the partition whose turn is next."""
        self._again: deque[asyncio.Future[None]] = deque()
        self._rota = Rota()

    @asynccontextmanager
    async def turn(self, queue: Queue, partition: int = 0) -> AsyncIterator[None]:
        """Hold the turn. Within the partition first come, first served."""
        await self._enter(queue, partition)
        try:
            yield
        finally:
            self._pass_on()

    @asynccontextmanager
    async def again(self) -> AsyncIterator[None]:
        """Hold the turn once more; among those who come again first come, first served."""
        if self._busy:
            await self._wait(self._again)
        self._busy = True
        try:
            yield
        finally:
            self._pass_on()

    async def _enter(self, queue: Queue, partition: int) -> None:
        if not self._busy:
            self._busy = True
            self._rota.choose((queue,))
            return
        await self._wait(self._waiting.setdefault(queue, {}).setdefault(partition, deque()))

    async def _wait(self, line: deque[asyncio.Future[None]]) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._pass_on()  # the turn was given and nobody took it
            raise

    def _pass_on(self) -> None:
        while self._again:
            place = self._again.popleft()
            if not place.done():
                place.set_result(None)
                return
        waiting = [queue for queue, parts in self._waiting.items() if _some(parts)]
        if not waiting:
            self._busy = False
            return
        parts = self._waiting[self._rota.choose(waiting)]
        partition, line = next(iter(parts.items()))
        del parts[partition]
        line.popleft().set_result(None)
        if line:
            parts[partition] = line  # behind the others


def _some(parts: dict[int, deque[asyncio.Future[None]]]) -> bool:
    """Whether anybody waits; who was cancelled does not."""
    for partition, line in list(parts.items()):
        while line and line[0].done():
            line.popleft()
        if not line:
            del parts[partition]
    return bool(parts)
