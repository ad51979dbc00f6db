"""The limiter that moves between two stores: Redis, and PostgreSQL while Redis is away; never both at a time.

Without news of the authority it grants nothing, whatever the stores say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from prometheus_client import Counter, Gauge

from ops.kafka.clients import PublishError
from ops.telemetry import logger
from streams.errors import LimiterUnavailable
from streams.limiter.authority import BEAT_S, Authority, Store, granting
from streams.limiter.control import ControlLog
from streams.limiter.port import Permit
from streams.limiter.store import StoreLimiter

EPOCH = Gauge("kifiya_limiter_epoch", "Epoch of the lane's limiter; even: Redis, odd: PostgreSQL.", ["lane"])
HOLDS = Gauge("kifiya_limiter_holds", "1 while permits may be had of this store.", ["lane", "store"])
MOVES = Counter("kifiya_limiter_moves", "Moves of the lane's limiter that were heard of, by where to.", ["lane", "to"])


class SwitchingLimiter:
    """Limiter of one lane over all its workers, on the store that the authority names."""

    def __init__(
        self,
        stores: dict[Store, StoreLimiter],
        log: ControlLog,
        authority: Authority,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.authority = authority
        self._stores = stores
        self._log = log
        self._clock = clock
        self._moved = asyncio.Event()
        self._urgent = asyncio.Event()
        self._opened = AsyncExitStack()

    @property
    def healthy(self) -> bool:
        """Whether permits can be had."""
        store = self.authority.grants(self._clock())
        return store is not None and self._stores[store].healthy

    async def __aenter__(self) -> Self:
        for store in self._stores.values():
            await self._opened.enter_async_context(store)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    async def watch(self) -> None:
        """Watch both stores, tell and hear; never returns."""
        async with asyncio.TaskGroup() as together:
            for store in self._stores.values():
                together.create_task(store.watch())
            together.create_task(self._tell())
            together.create_task(self._listen())

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        """See the port. A permit counts only if the authority is the same before and after it was granted."""
        epoch, store = self.authority.epoch, self.authority.grants(self._clock())
        if store is None:
            raise LimiterUnavailable("it is not known who grants")
        permit = await self._unless_moved(store, lead_s)
        if self.authority.epoch != epoch or self.authority.grants(self._clock()) is None:
            raise LimiterUnavailable("it is not known any more who grants")
        return permit

    async def _unless_moved(self, store: Store, lead_s: float) -> Permit:
        moving = asyncio.create_task(self._moved.wait())
        asking = asyncio.create_task(self._stores[store].acquire(lead_s))
        try:
            await asyncio.wait({asking, moving}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise LimiterUnavailable("another store grants")
            return asking.result()
        finally:
            asking.cancel()
            moving.cancel()

    async def _tell(self) -> None:
        """A beat a second, and at once when there is something new."""
        authority = self.authority
        while True:
            self._urgent.clear()
            now = self._clock()
            for name, store in self._stores.items():
                authority.see(name, now, answers=store.healthy)
                HOLDS.labels(authority.lane, name.value).set(float(authority.grants(now) is name))
            EPOCH.labels(authority.lane).set(authority.epoch)
            beat = authority.beat(now)
            if beat.epoch > authority.epoch:
                self._say("the lane is to move", "limiter-proposes", beat.epoch)
            try:
                await self._log.tell(beat, authority.forget(now))
            except PublishError as error:
                logger().info("a beat is not known to be stored", action="limiter-mute", error=str(error))
            except Exception:  # noqa: BLE001 - whatever it is, without beats nothing is granted
                logger().exception("a beat could not be told", action="limiter-mute", lane=authority.lane)
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._urgent.wait()
            except TimeoutError:
                pass

    async def _listen(self) -> None:
        async for beat in self._log.beats():
            if self.authority.hear(beat, self._clock()):
                self._moved.set()
                self._moved = asyncio.Event()
                self._urgent.set()
                MOVES.labels(self.authority.lane, granting(self.authority.epoch).value).inc()
                self._say("the lane moves", "limiter-moves", self.authority.epoch)

    def _say(self, what: str, action: str, epoch: int) -> None:
        logger().warning(what, action=action, lane=self.authority.lane, epoch=epoch, to=granting(epoch).value)
