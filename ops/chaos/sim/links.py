"""Three stores as one worker sees them: a Redis, a PostgreSQL and a control log, each behind a link that may break.

A link that is cut swallows questions or answers; what was written into it may arrive when it is whole again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ops.chaos.sim.loop import Process, current, running, sleep
from ops.chaos.sim.store import ANSWER_S, Client, Server
from ops.kafka.clients import PublishTimedOut
from schemas import codec
from schemas.records import LimiterBeat
from streams.limiter.control import TELL_S
from streams.limiter.postgres import NOW


@dataclass(slots=True)
class Link:
    """The way from one worker to one store. ``lag_s``: while it lags, what is read is so old."""

    random: Random
    cut_until: float = 0.0
    lags_until: float = 0.0
    lag_s: float = 0.0

    def left_s(self) -> float:
        """How long it stays cut."""
        return max(0.0, self.cut_until - running().now)


class RedisClient(Client):
    """The limiter's Redis client behind a link."""

    def __init__(self, server: Server, link: Link) -> None:
        super().__init__(server)
        self._link = link

    async def _ask(self, act: Callable[[], Any]) -> Any:
        if not self._link.left_s():
            return await super()._ask(act)
        if self._link.random.random() < 0.3 and self._server.away_until <= running().now:
            act()  # it was heard, and only the answer is lost
        await sleep(ANSWER_S)
        raise RedisTimeoutError("cut off")


class PostgresConnection:
    """What the limiter needs of ``asyncpg.Connection``: the same rule on another server's clock, behind a link."""

    def __init__(self, server: Server, link: Link) -> None:
        self._server = server
        self._client = RedisClient(server, link)

    def is_closed(self) -> bool:
        """Whether it is of no more use."""
        return False

    def terminate(self) -> None:
        """Nothing to close."""

    async def fetchrow(self, query: str, *arguments: Any) -> tuple[Any, ...]:
        """One of the limiter's two statements. Raises OSError."""
        self._server.load()
        try:
            if query == NOW:
                seconds, micros = await self._client.time()
                return seconds * 1_000_000 + micros, True
            granted, number, now_us, _ = await self._client.evalsha("", 1, *arguments)
        except RedisError as error:
            raise OSError(str(error)) from error
        return granted == 1, int(number), int(now_us)


@dataclass(slots=True)
class Log:
    """One topic of one partition. ``away_until``: nobody writes or reads before."""

    random: Random
    records: list[LimiterBeat] = field(default_factory=list)
    stored_at: list[float] = field(default_factory=list)
    away_until: float = 0.0
    _last: dict[Process | None, float] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, value: bytes) -> None:
        """Store a record."""
        self.records.append(codec.decode(value, LimiterBeat))
        self.stored_at.append(running().now)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def latency_s(self) -> float:
        """One way, now and then a slow one."""
        usual = self.random.random() < 0.97
        return self.random.uniform(0.0005, 0.003) if usual else self.random.uniform(0.01, 0.5)

    def store_at(self, process: Process | None, at: float, act: Callable[[], None]) -> None:
        """Let a write arrive; those of one process arrive in their order."""
        at = max(at, self._last.get(process, 0.0) + 1e-6)
        self._last[process] = at
        running().call_world(at, act)

    async def news(self) -> None:
        """Wait for a record more."""
        await self._news.wait()


class LogClient:
    """The control log behind a link."""

    def __init__(self, log: Log, link: Link) -> None:
        self._log = log
        self._link = link

    async def tell(self, beat: LimiterBeat, gone: Sequence[str] = ()) -> None:
        """See the port."""
        del gone
        log, loop, process = self._log, running(), current()
        value = codec.encode(beat)
        acked: asyncio.Future[None] = loop.create_future()
        wait_s = max(self._link.left_s(), log.away_until - loop.now)
        lost = wait_s > 0 and self._link.random.random() < 0.5

        def store() -> None:
            if lost or (process is not None and process.dead and self._link.random.random() < 0.5):
                return
            log.append(value)
            loop.call_world(loop.now + log.latency_s(), lambda: None if acked.done() else acked.set_result(None))

        log.store_at(process, loop.now + wait_s + log.latency_s(), store)
        try:
            async with asyncio.timeout(TELL_S):
                await acked
        except TimeoutError as error:
            raise PublishTimedOut("no ack") from error

    async def beats(self) -> AsyncGenerator[LimiterBeat, None]:
        """See the port. Whoever begins may find the log compacted: of each worker, the last of what is old."""
        log, random = self._log, self._link.random
        old = random.randint(0, len(log.records)) if random.random() < 0.5 else 0
        kept = set({beat.worker: place for place, beat in enumerate(log.records[:old])}.values())
        place = 0
        while True:
            now = running().now
            wait_s = max(self._link.left_s(), log.away_until - now)
            if wait_s <= 0 and place == len(log.records):
                await log.news()
                continue
            if wait_s <= 0 and now < self._link.lags_until:
                wait_s = log.stored_at[place] + self._link.lag_s - now
            if wait_s > 0:
                await sleep(wait_s)
            else:
                found, place = place, place + 1
                if found >= old or found in kept:
                    await sleep(log.latency_s() if self._link.random.random() < PAUSES else 0.0)
                    yield log.records[found]


PAUSES: Final = 0.3
"""Records before which a reader waits for the next fetch."""
