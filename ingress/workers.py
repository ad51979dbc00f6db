"""What the workers say of themselves over Redis: a second fresher than what Kafka knows of them, and why they rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ingress.waiting import BREAKER_OPEN, LIMITER_AWAY, NO_WORKER
from schemas import pulse
from schemas.pulse import InvalidPulse, Pulse

_ANSWER_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Workers:
    """What those of one hash say. ``redis``: whether it could be asked."""

    pulses: tuple[Pulse, ...] = ()
    redis: bool = True

    @property
    def paused(self) -> str | None:
        """Why nothing is called now; None where it is."""
        if not self.redis:
            return LIMITER_AWAY
        if not self.pulses:
            return NO_WORKER
        if all(said.breaker_open for said in self.pulses):
            return BREAKER_OPEN
        return None if any(said.limiter for said in self.pulses) else LIMITER_AWAY

    @property
    def breaker(self) -> str:
        """``closed``, ``open``, or ``unknown`` where nobody says."""
        if not self.redis or not self.pulses:
            return "unknown"
        return "open" if self.paused == BREAKER_OPEN else "closed"

    def head(self, topic: str, partition: int) -> int:
        """The furthest that one of them is there; 0 where none says."""
        place = topic, partition
        return max((said.heads[place].offset for said in self.pulses if place in said.heads), default=0)

    def ahead(self, lane: str) -> dict[str, float]:
        """How much each merchant has waiting in the lane; each process of intake tells what it sees as the whole."""
        found: dict[str, float] = {}
        for said in self.pulses:
            for merchant, waiting in said.ahead.get(lane, {}).items():
                found[merchant] = max(waiting, found.get(merchant, 0.0))
        return found

    def oldest_ms(self, topic: str, partition: int, head: int) -> int | None:
        """When the payment at this head was accepted, where one says."""
        place = topic, partition
        found = [said.heads[place] for said in self.pulses if place in said.heads]
        return next((each.accepted_at_ms for each in found if each.offset == head), None)


class Ward:
    """Feels the pulses of these hashes."""

    def __init__(self, url: str, keys: Iterable[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis: Any = Redis.from_url(
            url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S, max_connections=1,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        self._keys = tuple(keys)
        self._clock = clock
        self._heard: dict[tuple[str, bytes], tuple[Pulse, float]] = {}
        """Each worker's last word, and when it was new."""

    async def look(self) -> dict[str, Workers]:
        """The workers of each hash that live."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in self._keys:
                    pipe.hgetall(key)
                found = await pipe.execute()
        except (RedisError, OSError):
            return dict.fromkeys(self._keys, Workers(redis=False))
        return self.hear(dict(zip(self._keys, found, strict=True)))

    def hear(self, told: dict[str, dict[bytes, bytes]]) -> dict[str, Workers]:
        """The workers that live, of what all of them tell: one whose beat stands still is gone."""
        now = self._clock()
        heard: dict[tuple[str, bytes], tuple[Pulse, float]] = {}
        for key, words in told.items():
            for name, raw in words.items():
                try:
                    word = pulse.decode(raw)
                except InvalidPulse:
                    continue
                known = self._heard.get((key, name))
                since = now if known is None or known[0].beat != word.beat else known[1]
                heard[key, name] = word, since
        self._heard = heard
        return {
            key: Workers(tuple(word for (of, _), (word, at) in heard.items() if of == key and now - at <= pulse.GONE_S))
            for key in self._keys
        }

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()
