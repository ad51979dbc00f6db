"""Kafka clients shared by all roles: one publisher whose word is the brokers' ack, and the ends of partitions.

The dialect names the broker: ``apache`` is the real thing; ``tansu``, the embedded one, knows no idempotent producer
and tells the ends of partitions wrongly.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from ops.kafka.partitions import home, partition_for, partitioner

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


_Told = tuple[int, Any]
"""The place of a record, and what became of it: an exception, or whatever the broker said."""
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
            partitioner=partitioner,
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
        send = self._in_batches if len(messages) >= MANY and _all_small(messages) else self._one_by_one
        try:
            with within(timeout_s):
                producer = await self._renew() if self._gap else self._producer
                if producer is None:
                    raise PublishTimedOut("the producer is not connected")
                told = await send(producer, messages)
        except TimeoutError as error:
            raise PublishTimedOut(f"no ack within {timeout_s} s") from error
        except KafkaError as error:
            raise PublishTimedOut(f"{type(error).__name__}") from error
        refused: RecordRefused | None = None
        for index, answer in told:
            if isinstance(answer, _GAPS) and producer is self._producer:
                self._gap = True
            if isinstance(answer, REFUSALS):
                refused = refused or RecordRefused(index, answer)
            elif isinstance(answer, BaseException):
                raise PublishTimedOut(type(answer).__name__) from answer
        if refused is not None:
            raise refused

    async def _one_by_one(self, producer: AIOKafkaProducer, messages: Sequence[Message]) -> list[_Told]:
        sent: list[asyncio.Future[Any]] = []
        for message in messages:
            try:
                answer = await producer.send(
                    message.topic, message.value, message.key, message.partition, headers=list(message.headers)
                )
            except REFUSALS as error:
                answer = asyncio.get_running_loop().create_future()
                answer.set_exception(error)
            sent.append(answer)
        return list(enumerate(await _answers(sent)))

    async def _in_batches(self, producer: AIOKafkaProducer, messages: Sequence[Message]) -> list[_Told]:
        """A batch per partition, without a future and a look-up of the partitions for each record.

        Each answer has the place of its batch's first record.
        """
        counts = {topic: len(await producer.partitions_for(topic)) for topic in {each.topic for each in messages}}
        groups: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for index, message in enumerate(messages):
            groups[message.topic, home(message, counts[message.topic])].append(index)
        firsts: list[int] = []
        sent: list[asyncio.Future[Any]] = []
        for (topic, partition), indices in groups.items():
            first, batch = indices[0], producer.create_batch()
            for index in indices:
                message = messages[index]
                while not batch.append(
                    timestamp=None, key=message.key, value=message.value, headers=list(message.headers)
                ):
                    firsts.append(first)
                    sent.append(await producer.send_batch(batch, topic, partition=partition))
                    first, batch = index, producer.create_batch()
            batch.close()
            firsts.append(first)
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        return list(zip(firsts, await _answers(sent), strict=True))


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


def _all_small(messages: Sequence[Message]) -> bool:
    """Whether none may be too large for one request."""
    return all(len(message.value or b"") <= SMALL for message in messages)


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
