"""A worker's pulse: tells twice a second over Redis how far it is and whether it calls. Best effort.

Kafka tells the same from what is committed, which is late by seconds: too late for what the ingress says of queues.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from schemas import pulse
from schemas.pulse import Head, Pulse

_ANSWER_S: Final = 0.5
_CLEAR_EVERY: Final = 120
"""Beats after which what workers left that are gone is dropped; those that are there tell again at once."""


class Heart:
    """Beats for one worker; without a ``url`` nobody hears it."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        breaker_open: Callable[[], bool] = lambda: False,
        limiter: Callable[[], bool] = lambda: True,
        ahead: Callable[[], dict[str, dict[str, float]]] = dict,
    ) -> None:
        self._client: Any = url and Redis.from_url(
            url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S, retry=Retry(NoBackoff(), 0),
            max_connections=1,
        )  # fmt: skip
        self._key = key
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._breaker_open = breaker_open
        self._limiter = limiter
        self._ahead = ahead
        self._heads: dict[tuple[str, int], Head] = {}
        self._open: dict[tuple[str, int], dict[int, int | None]] = {}
        self._reach: dict[tuple[str, int], int] = {}
        """How far what was begun reaches since some record is open."""
        self._in_hand = 0
        self._beat = 0

    @contextmanager
    def handling(
        self, topic: str, partition: int, offset: int, *, accepted_at_ms: int | None = None, after: int | None = None
    ) -> Iterator[None]:
        """Have this record, or those up to ``after``, in hand for the block; an exception leaves them unfinished.

        Of several in hand the first unfinished one is the head, moved on by those that were finished behind it.
        """
        place = topic, partition
        opened = self._open.setdefault(place, {})
        self._reach[place] = max(self._reach[place] if opened else 0, offset + 1)
        opened[offset] = accepted_at_ms
        self._move(place)
        self._in_hand += 1
        try:
            yield
            opened.pop(offset, None)
            self._reach[place] = max(self._reach[place], after or 0)
            self._move(place)
        finally:
            opened.pop(offset, None)
            self._in_hand -= 1

    def _move(self, place: tuple[str, int]) -> None:
        opened = self._open[place]
        oldest_ms = opened[min(opened)] if opened else None
        self._heads[place] = Head(self._reach[place] - len(opened), oldest_ms)

    def word(self) -> Pulse:
        """What is told next."""
        self._beat += 1
        return Pulse(self._beat, self._breaker_open(), self._limiter(), self._in_hand, dict(self._heads), self._ahead())

    async def beat(self) -> None:
        """Tell, until cancelled."""
        if not self._client:
            return
        try:
            while True:
                try:
                    async with asyncio.timeout(2 * _ANSWER_S):
                        await self._tell()
                except (RedisError, OSError, TimeoutError):
                    pass  # the limiter says that Redis is away
                await asyncio.sleep(pulse.BEAT_S)
        finally:
            await self._client.aclose()

    async def _tell(self) -> None:
        said = pulse.encode(self.word())
        async with self._client.pipeline(transaction=False) as pipe:
            if self._beat % _CLEAR_EVERY == 0:
                pipe.delete(self._key)
            pipe.hset(self._key, self._worker, said)
            pipe.pexpire(self._key, int(pulse.GONE_S * 2000))
            await pipe.execute()
