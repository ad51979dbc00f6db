"""Reading what lies further back than the recent events: a few consumers, each lent for one short slice at a time.

A reader from the topic's beginning gets as much as its turn gives and waits in line for the next, so nobody waits long,
and the pauses between reads leave the loop to those who pay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from ingress import cursor
from ingress.presence import Away
from ingress.recent import Item, Place, Recent
from ingress.tail import consumer, merchant_of
from ops import trace
from ops.kafka.clients import KafkaSettings, end_offsets
from schemas import topics

MOST: Final = 2
SLICE_S: Final = 0.3
BATCH: Final = 250
POLL_MS: Final = 200
PAUSE_S: Final = 0.005
ANSWER_S: Final = 2.0
"""How long Kafka may take for what is no fetch."""


class Gone(Exception):
    """The topic does not hold this point: its records have expired, or it is another topic's."""


def _part(number: int) -> TopicPartition:
    return TopicPartition(topics.EVENTS, number)


class Readers:
    """At most ``most`` consumers, connected when they are first needed. Every method raises Away."""

    def __init__(self, kafka: KafkaSettings, *, most: int = MOST) -> None:
        self._kafka = kafka
        self._turn = asyncio.Semaphore(most)
        self._free: list[AIOKafkaConsumer] = []
        self._started: set[AIOKafkaConsumer] = set()

    async def close(self) -> None:
        """Close the connections."""
        while self._free:
            await self._free.pop().stop()

    async def begins(self, count: int) -> list[int]:
        """The first offset that each partition holds."""
        parts = [_part(number) for number in range(count)]
        async with self._lent() as reader:
            found = await _begins(reader, parts)
        return [found[part] for part in parts]

    async def ends(self, count: int) -> list[int]:
        """The offset after the last record of each partition."""
        parts = [_part(number) for number in range(count)]
        try:
            found = await end_offsets(self._kafka, parts, timeout_s=ANSWER_S)
        except (KafkaError, TimeoutError, OSError) as error:
            raise _away() from error
        return [found[part] for part in parts]

    async def slice(self, place: Place, recent: Recent, limit: int) -> list[Item]:
        """What the place's merchant is owed next, at most so many; the place moves on. None found: ask again.

        Raises Gone, Away: the place has not moved.
        """
        async with self._lent() as reader:
            return await _slice(reader, place, recent, limit)

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[AIOKafkaConsumer]:
        async with self._turn:
            reader = self._free.pop() if self._free else consumer(self._kafka)
            try:
                if reader not in self._started:
                    async with asyncio.timeout(ANSWER_S):
                        await reader.start()
                    self._started.add(reader)
                yield reader
            except BaseException as error:
                self._started.discard(reader)
                await reader.stop()
                if isinstance(error, OffsetOutOfRangeError):
                    raise Gone from error
                if isinstance(error, KafkaError | TimeoutError | OSError):
                    raise _away() from error
                raise
            self._free.append(reader)


def _away() -> Away:
    return Away("kafka: the events cannot be read")


async def _begins(reader: AIOKafkaConsumer, parts: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    async with asyncio.timeout(ANSWER_S):
        found: dict[TopicPartition, int] = await reader.beginning_offsets(list(parts))
        return found


async def _slice(reader: AIOKafkaConsumer, place: Place, recent: Recent, limit: int) -> list[Item]:
    """One turn. Ends at ``limit``, when its time is over, or where the recent events begin."""
    offsets = list(place.offsets)
    end = time.monotonic() + SLICE_S
    left = {_part(number) for number, start in enumerate(recent.starts) if offsets[number] < start}
    for part, begin in (await _begins(reader, list(left))).items():
        if offsets[part.partition] < begin:
            raise Gone
    reader.assign(list(left))
    for part in left:
        reader.seek(part, offsets[part.partition])
    items: list[Item] = []
    mine = place.merchant_id.encode()
    while left and len(items) < limit and time.monotonic() < end:
        found = await reader.getmany(*left, timeout_ms=POLL_MS, max_records=BATCH)
        for part, records in found.items():
            for record in records:
                if len(items) >= limit:
                    break
                offsets[record.partition] = record.offset + 1
                # Bytes that hold the merchant's name nowhere need no decoding: that is a hundred times as fast.
                if mine in (record.value or b"") and merchant_of(record.value) == place.merchant_id:
                    here, context = cursor.encode(offsets), trace.of(record.headers)
                    items.append(Item(record.partition, record.offset, record.value, here, context))
            if len(items) >= limit:
                break
            offsets[part.partition] = max(offsets[part.partition], await reader.position(part))
        left = {part for part in left if offsets[part.partition] < recent.starts[part.partition]}
        await asyncio.sleep(PAUSE_S)
    reader.assign([])
    place.offsets = offsets
    return items
