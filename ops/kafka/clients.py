"""Kafka clients shared by all roles: one publisher whose word is the brokers' ack, and the ends of partitions.

The dialect names the broker: ``apache`` is the real thing; ``tansu``, the embedded one, knows no idempotent producer
and tells the ends of partitions wrongly.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Literal, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidMessageError,
    InvalidProducerIdMapping,
    InvalidTopicError,
    KafkaError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RecordListTooLargeError,
    RecordTooLargeError,
    UnknownProducerId,
)

from ops.deadline import within
from ops.kafka.message import Message

__all__ = [
    "REFUSALS",
    "KafkaSettings",
    "Message",
    "PublishError",
    "PublishTimedOut",
    "Publisher",
    "RecordRefused",
    "end_offsets",
    "partition_for",
]

REFUSALS: Final = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RecordTooLargeError,
    InvalidMessageError,
    InvalidTopicError,
)
"""Errors that the broker will give for this record for ever."""
_GAPS: Final = (
    LeaderNotAvailableError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    UnknownProducerId,
    InvalidProducerIdMapping,
    ProducerFenced,
)
"""Errors after which aiokafka's idempotent producer fails on that partition for ever: a batch that outlives its time
while no leader is known is dropped with its number taken, and the broker goes on waiting for that number."""
_SEED: Final = 0x9747B28C
_MIX: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF
_CLOSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka: ``host:port`` pairs separated by commas, and which broker answers there."""

    bootstrap: str
    dialect: Literal["apache", "tansu"] = "apache"


class PublishError(Exception):
    """Some record is not known to be stored."""


class RecordRefused(PublishError):
    """The broker refuses one record for good. The others of the same call may be stored; to publish again is safe."""

    def __init__(self, index: int, cause: Exception) -> None:
        super().__init__(f"record {index}: {type(cause).__name__}")
        self.index = index
        self.cause = cause


class PublishTimedOut(PublishError):
    """No ack in time, or the broker is away: the records may or may not be stored."""


def partition_for(key: bytes, count: int) -> int:
    """The partition of a key among ``count``, as Java's default partitioner chooses it (murmur2)."""
    return _hash(key) % count


@lru_cache(maxsize=4096)
def _hash(key: bytes) -> int:
    """MurmurHash2 with the seed of Kafka's clients, in two fifths of the time of aiokafka's, which takes byte by byte.

    Cached, as a payment's key is asked about some three times in a row.
    """
    size = len(key)
    found = _SEED ^ size
    for word in struct.unpack_from(f"<{size >> 2}I", key):
        mixed = word * _MIX & _WORD
        found = (found * _MIX ^ (mixed ^ mixed >> 24) * _MIX) & _WORD
    if rest := key[size & ~3 :]:
        found = (found ^ int.from_bytes(rest, "little")) * _MIX & _WORD
    found = (found ^ found >> 13) * _MIX & _WORD
    return (found ^ found >> 15) & 0x7FFFFFFF


def _partitioner(key: bytes | None, every: list[int], available: list[int]) -> int:
    """As aiokafka's own: by the key, or anywhere without one."""
    return every[partition_for(key, len(every))] if key is not None else random.choice(available or every)  # noqa: S311


_Sent = tuple[int, asyncio.Future[Any]]
MANY: Final = 16
SMALL: Final = 128 * 1024


class Publisher:
    """A producer that has said nothing until every replica in sync has said yes.

    An async context manager; ``start`` fails with KafkaError while the broker is away.
    """

    def __init__(self, kafka: KafkaSettings, *, linger_ms: int = 5, request_timeout_ms: int = 30_000) -> None:
        self._kafka = kafka
        self._linger_ms = linger_ms
        self._request_timeout_ms = request_timeout_ms
        self._producer: AIOKafkaProducer | None = None
        self._gap = False
        self._renewing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect. Raises KafkaError."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka.bootstrap,
            acks="all",
            enable_idempotence=self._kafka.dialect == "apache",
            linger_ms=self._linger_ms,
            max_batch_size=262_144,
            max_request_size=1_048_576,
            request_timeout_ms=self._request_timeout_ms,
            partitioner=_partitioner,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer, self._gap = producer, False

    async def _renew(self) -> AIOKafkaProducer | None:
        """A producer without a gap in its numbers, in place of one that has one. Raises KafkaError."""
        async with self._renewing:
            worn = self._producer
            if worn is not None and self._gap:
                await self.start()
                task = asyncio.create_task(_close(worn))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        return self._producer

    async def stop(self) -> None:
        """Flush what is in hand and close."""
        async with self._renewing:  # or a renewal would leave the next producer behind
            producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()
        if self._closing:
            await asyncio.wait(self._closing, timeout=_CLOSE_S)

    @property
    def running(self) -> bool:
        """Whether it is started and its sender lives: aiokafka's stops for good on an error it does not know."""
        if self._producer is None:
            return False
        sender = self._producer._sender.sender_task  # noqa: SLF001 - nothing public tells it
        return sender is not None and not sender.done()

    async def ping(self, topic: str = "") -> None:
        """Whether a broker answers now and, with a topic, each of its partitions has a leader.

        Raises PublishTimedOut, KafkaError.
        """
        if self._producer is None:
            raise PublishTimedOut("the producer is not connected")
        cluster = await self._producer.client.fetch_all_metadata()
        if topic:
            found = cluster.partitions_for_topic(topic)
            if not found or found != cluster.available_partitions_for_topic(topic):
                raise PublishTimedOut(f"no leader for every partition of {topic}")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def publish(self, messages: Sequence[Message], timeout_s: float = 30.0) -> None:
        """Store these records, in order per partition; returns when all are acked.

        Raises RecordRefused for the first record that the broker refuses for good, PublishTimedOut for anything else.
        """
        send = self._in_batches if _worth_batches(messages) else self._one_by_one
        try:
            with within(timeout_s):
                producer = await self._renew() if self._gap else self._producer
                if producer is None:
                    raise PublishTimedOut("the producer is not connected")
                sent = await send(producer, messages)
                answers = await _answers([answer for _, answer in sent])
        except TimeoutError as error:
            raise PublishTimedOut(f"no ack within {timeout_s} s") from error
        except KafkaError as error:
            raise PublishTimedOut(f"{type(error).__name__}") from error
        if producer is self._producer and any(isinstance(answer, _GAPS) for answer in answers):
            self._gap = True
        refused: RecordRefused | None = None
        for (index, _), answer in zip(sent, answers, strict=True):
            if isinstance(answer, REFUSALS):
                refused = refused or RecordRefused(index, answer)
            elif isinstance(answer, BaseException):
                raise PublishTimedOut(type(answer).__name__) from answer
        if refused is not None:
            raise refused

    async def _one_by_one(self, producer: AIOKafkaProducer, messages: Sequence[Message]) -> list[_Sent]:
        sent: list[_Sent] = []
        for index, message in enumerate(messages):
            try:
                answer = await producer.send(
                    message.topic, message.value, message.key, message.partition, headers=list(message.headers)
                )
            except REFUSALS as error:
                answer = asyncio.get_running_loop().create_future()
                answer.set_exception(error)
            sent.append((index, answer))
        return sent

    async def _in_batches(self, producer: AIOKafkaProducer, messages: Sequence[Message]) -> list[_Sent]:
        """A batch per partition, without a future and a look-up of the partitions for each record.

        Each answer has the place of its batch's first record.
        """
        counts = {topic: len(await producer.partitions_for(topic)) for topic in {each.topic for each in messages}}
        groups: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for index, message in enumerate(messages):
            partition = message.partition
            if partition is None:
                count = counts[message.topic]
                partition = random.randrange(count) if message.key is None else partition_for(message.key, count)  # noqa: S311
            groups[message.topic, partition].append(index)
        sent: list[_Sent] = []
        for (topic, partition), indices in groups.items():
            first, batch = indices[0], producer.create_batch()
            for index in indices:
                message = messages[index]
                while not batch.append(
                    timestamp=None, key=message.key, value=message.value, headers=list(message.headers)
                ):
                    sent.append((first, await producer.send_batch(batch, topic, partition=partition)))
                    first, batch = index, producer.create_batch()
            batch.close()
            sent.append((first, await producer.send_batch(batch, topic, partition=partition)))
        return sent


async def _answers(waiting: list[asyncio.Future[Any]]) -> list[Any]:
    """What each of them came to: what the broker said, or an exception."""
    if len(waiting) != 1:
        return await asyncio.gather(*waiting, return_exceptions=True)
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:  # the same without a future around it, and a turn of the loop: most have one
        return [await waiting[0]]
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > before:
            raise
        return [error]
    except Exception as error:  # noqa: BLE001 - told, not handled
        return [error]


async def _close(producer: AIOKafkaProducer) -> None:
    """What it still has in hand may be stored, or not: whoever gave it knows neither."""
    with suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await producer.stop()


def _worth_batches(messages: Sequence[Message]) -> bool:
    """Whether there are many, and none that may be too large for one request."""
    return len(messages) >= MANY and all(len(message.value or b"") <= SMALL for message in messages)


async def end_offsets(
    kafka: KafkaSettings, partitions: Iterable[TopicPartition], *, timeout_s: float = 20.0
) -> dict[TopicPartition, int]:
    """The offset after the last record of each partition. Raises KafkaError, TimeoutError.

    Tansu answers with its last *batch's* base offset + 1; the true end is found by reading that one batch.
    """
    wanted = list(partitions)
    if not wanted:
        return {}
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    async with asyncio.timeout(timeout_s):
        await consumer.start()
        try:
            ends: dict[TopicPartition, int] = await consumer.end_offsets(wanted)
            if kafka.dialect == "tansu":
                open_ends = {partition for partition, end in ends.items() if end > 0}
                consumer.assign(list(open_ends))
                for partition in open_ends:
                    consumer.seek(partition, ends[partition] - 1)
                while open_ends:
                    for partition, records in (await consumer.getmany(*open_ends, timeout_ms=1000)).items():
                        if records:
                            ends[partition] = max(ends[partition], records[-1].offset + 1)
                            open_ends.discard(partition)
            return ends
        finally:
            await consumer.stop()
