"""The control log of a lane: what its workers say about who grants its permits, in one order for all.

The Kafka adapter reads with no group: every worker reads it all, from the beginning, whenever it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiokafka.errors import KafkaError
from prometheus_client import Counter

from ops.kafka.clients import KafkaSettings
from ops.kafka.message import Message
from ops.kafka.reading import UnknownTopic, arriving
from ops.telemetry import logger
from schemas import codec, topics
from schemas.records import LimiterBeat
from streams.limiter.authority import BEAT_S

TELL_S: Final = 2 * BEAT_S
"""How long one beat may take; it may be stored all the same, and the next one says more."""
AGAIN_S: Final = 1.0

POISON = Counter("kifiya_limiter_poison", "Records of a lane's control topic that are no beats.", ["lane"])

Publish = Callable[[Sequence[Message], float], Awaitable[None]]


class ControlLog(Protocol):
    """Port. Each beat has one place in the log, the same for all who read it."""

    async def tell(self, beat: LimiterBeat, gone: Sequence[str] = ()) -> None:
        """Append a beat, and take the last words of these workers off.

        Raises PublishError: each may be appended, now or later, or not.
        """
        ...

    def beats(self) -> AsyncGenerator[LimiterBeat, None]:
        """All beats in their order, from the beginning, then as they come; never ends by itself."""
        ...


@dataclass(slots=True)
class MemoryControl:
    """A log in memory, for the workers of one process."""

    log: list[LimiterBeat] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def tell(self, beat: LimiterBeat, gone: Sequence[str] = ()) -> None:
        """See the port. Nothing is taken off: it would shift the places of the rest."""
        del gone
        async with self._news:
            self.log.append(beat)
            self._news.notify_all()

    async def beats(self) -> AsyncGenerator[LimiterBeat, None]:
        """See the port."""
        place = 0
        while True:
            async with self._news:
                while place == len(self.log):
                    await self._news.wait()
            while place < len(self.log):
                place += 1
                yield self.log[place - 1]


class KafkaControl:
    """The lane's compacted topic of one partition."""

    def __init__(self, kafka: KafkaSettings, lane: str, publish: Publish) -> None:
        self._kafka = kafka
        self._lane = lane
        self._topic = topics.limiter_topic(lane)
        self._publish = publish

    async def tell(self, beat: LimiterBeat, gone: Sequence[str] = ()) -> None:
        """See the port."""
        messages = [Message(self._topic, beat.worker.encode(), codec.encode(beat), partition=0)]
        messages += [Message(self._topic, worker.encode(), None, partition=0) for worker in gone]
        await self._publish(messages, TELL_S)

    async def beats(self) -> AsyncGenerator[LimiterBeat, None]:
        """See the port. Where Kafka is away or the topic is missing, says so and begins anew."""
        while True:
            try:
                async with aclosing(arriving(self._kafka, self._topic, from_beginning=True)) as records:
                    async for record in records:
                        if record.value is None:
                            continue
                        try:
                            yield codec.decode(record.value, LimiterBeat)
                        except codec.DecodeError as error:
                            POISON.labels(self._lane).inc()
                            logger().warning("no beat", action="limiter-poison", lane=self._lane, error=str(error))
            except UnknownTopic:
                text = "the lane's control topic is missing: run kifiya topics create; no permits until then"
                logger().error(text, action="limiter-topic-missing", lane=self._lane, topic=self._topic)
            except (KafkaError, OSError, TimeoutError) as error:
                logger().warning(
                    "the control topic cannot be read", action="limiter-deaf", lane=self._lane,
                    error=type(error).__name__,
                )  # fmt: skip
            await asyncio.sleep(AGAIN_S)
