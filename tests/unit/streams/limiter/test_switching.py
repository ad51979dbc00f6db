"""The limiter that moves: whom it asks, what it throws away, and that it grants nothing without news."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ops.kafka.clients import PublishTimedOut
from ops.kafka.message import Message
from schemas import codec, topics
from schemas.lanes import Lane
from schemas.records import LimiterBeat
from streams.errors import LimiterUnavailable
from streams.limiter.authority import AWAY_S, Authority, Pace, Store
from streams.limiter.control import KafkaControl, MemoryControl
from streams.limiter.port import Permit
from streams.limiter.store import StoreLimiter
from streams.limiter.switching import SwitchingLimiter

REDIS, POSTGRES = Store.REDIS, Store.POSTGRES


class Always(StoreLimiter):
    """A store that grants at once, or never comes to an answer, or is away."""

    away = ()

    def __init__(self) -> None:
        super().__init__(Lane(name="lane"))
        self.there = True
        self.slow = asyncio.Event()
        self.slow.set()
        self.asked = 0

    @property
    def healthy(self) -> bool:
        return self.there

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        del lead_s
        self.asked += 1
        await self.slow.wait()
        if not self.there:
            raise LimiterUnavailable("away")
        return Permit(0.0, 1.0, self.asked)

    async def _time_us(self) -> int:
        return 0

    async def _reserve(self, lead_us: int) -> tuple[bool, int, int]:
        return True, lead_us, 0


class Mute(MemoryControl):
    """Nobody's word is stored."""

    async def tell(self, beat: LimiterBeat, gone: Sequence[str] = ()) -> None:
        del beat, gone
        raise PublishTimedOut("away")


def beat(epoch: int, *, settled: bool = True) -> LimiterBeat:
    return LimiterBeat(lane="lane", worker="you", beat=1, epoch=epoch, settled=settled, redis=True, postgres=True)


@asynccontextmanager
async def switching(log: MemoryControl, pace: Pace = Pace(5.0, 0.05)) -> AsyncIterator[Any]:  # noqa: B008 - frozen
    """A limiter over two stores, its stores by name as ``stores``; a clock that can be set forward as ``ahead_s``."""
    stores = {REDIS: Always(), POSTGRES: Always()}
    ahead = [0.0]
    limiter: Any = SwitchingLimiter(
        dict(stores), log, Authority("lane", "me", pace), clock=lambda: time.monotonic() + ahead[0]
    )
    async with limiter:
        watching = asyncio.create_task(limiter.watch())
        try:
            yield limiter, stores, ahead
        finally:
            watching.cancel()


async def granted(limiter: SwitchingLimiter) -> Permit:
    """The first permit that there is."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await limiter.acquire()
            except LimiterUnavailable:
                await asyncio.sleep(0.005)


async def test_redis_grants_once_the_own_word_has_come_back() -> None:
    async with switching(MemoryControl()) as (limiter, stores, _):
        assert not limiter.healthy
        with pytest.raises(LimiterUnavailable):
            await limiter.acquire()
        await granted(limiter)
        assert limiter.healthy
        assert (stores[REDIS].asked, stores[POSTGRES].asked) == (1, 0)


async def test_without_kafka_nothing_is_granted_whatever_the_stores_say() -> None:
    async with switching(Mute()) as (limiter, stores, _):
        await asyncio.sleep(0.05)
        assert not limiter.healthy
        with pytest.raises(LimiterUnavailable):
            await limiter.acquire()
        assert stores[REDIS].asked == 0


async def test_news_grow_old() -> None:
    async with switching(MemoryControl()) as (limiter, _, ahead):
        await granted(limiter)
        ahead[0] = 5.1
        with pytest.raises(LimiterUnavailable):
            await limiter.acquire()


async def test_a_permit_that_is_waited_for_when_the_lane_moves_is_thrown_away_and_the_other_store_asked() -> None:
    log = MemoryControl()
    async with switching(log) as (limiter, stores, _):
        await granted(limiter)
        stores[REDIS].slow.clear()
        waiting = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0.01)
        await log.tell(beat(1, settled=False))
        with pytest.raises(LimiterUnavailable, match="another store"):
            await waiting
        await granted(limiter)
        assert stores[POSTGRES].asked == 1
        assert log.log[-1].epoch == 1


async def test_a_permit_that_comes_when_the_news_are_too_old_is_thrown_away() -> None:
    async with switching(MemoryControl()) as (limiter, stores, ahead):
        await granted(limiter)
        stores[REDIS].slow.clear()
        waiting = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0.01)
        ahead[0] = 5.1
        stores[REDIS].slow.set()
        with pytest.raises(LimiterUnavailable, match="any more"):
            await waiting


async def test_without_redis_the_lane_moves_to_postgresql_and_back() -> None:
    log = MemoryControl()
    async with switching(log) as (limiter, stores, ahead):
        await granted(limiter)
        stores[REDIS].there = False
        with pytest.raises(LimiterUnavailable):
            await limiter.acquire()
        await asyncio.sleep(1.1)  # it is seen to be away
        ahead[0] += AWAY_S
        await granted(limiter)
        assert stores[POSTGRES].asked == 1
        stores[REDIS].there = True
        before = stores[REDIS].asked
        await asyncio.sleep(1.1)
        ahead[0] += AWAY_S
        async with asyncio.timeout(5):
            while stores[REDIS].asked == before:
                await granted(limiter)
                await asyncio.sleep(0.01)
        assert [epoch for epoch in range(4) if any(each.epoch == epoch for each in log.log)] == [0, 1, 2]


async def test_a_beat_is_published_under_its_workers_key_and_the_gone_ones_are_taken_off() -> None:
    published: list[Message] = []

    async def publish(messages: Sequence[Message], timeout_s: float) -> None:
        assert timeout_s < 5.0
        published.extend(messages)

    said = beat(3)
    await KafkaControl(None, "lane", publish).tell(said, ["gone"])  # type: ignore[arg-type]  # nothing is read
    topic = topics.limiter_topic("lane")
    assert published == [
        Message(topic, b"you", codec.encode(said), partition=0),
        Message(topic, b"gone", None, partition=0),
    ]
