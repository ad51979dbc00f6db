"""Reading a topic as a person does: what it holds now, or what arrives; in no consumer group, committing nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from ops.kafka.clients import KafkaSettings, end_offsets

IDLE_S: Final = 5.0
"""No record for so long, before an end is reached: an open transaction stands there, or the records were deleted."""
BATCH: Final = 500
POLL_MS: Final = 250


class UnknownTopic(Exception):
    """The broker has no topic of this name."""


@asynccontextmanager
async def _consumer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def partition_counts(kafka: KafkaSettings) -> dict[str, int]:
    """All topics that are there, with their numbers of partitions. Raises KafkaError.

    A consumer would not do: it knows the partitions only of topics it is assigned.
    """
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        await client.start()
        return {item["topic"]: len(item["partitions"]) for item in await client.describe_topics()}
    finally:
        await client.close()


async def _partitions(kafka: KafkaSettings, topic: str) -> list[TopicPartition]:
    count = (await partition_counts(kafka)).get(topic)
    if not count:
        raise UnknownTopic(topic)
    return [TopicPartition(topic, number) for number in range(count)]


async def present(
    kafka: KafkaSettings, topic: str, *, last: int | None = None, since: Mapping[int, int] | None = None
) -> AsyncGenerator[ConsumerRecord, None]:
    """The records that a topic holds now, in order within each partition; with ``last``, so many of each partition.

    ``since`` names, by partition, the offset from which on they are wanted.
    Raises UnknownTopic, KafkaError, TimeoutError. Close it (``contextlib.aclosing``) where it is left early.
    """
    parts = await _partitions(kafka, topic)
    async with _consumer(kafka) as consumer:
        begins = await consumer.beginning_offsets(parts)
        for part in parts:
            begins[part] = max(begins[part], (since or {}).get(part.partition, 0))
        ends = await end_offsets(kafka, parts)
        left = {part for part in parts if ends[part] > begins[part]}
        consumer.assign(list(left))
        for part in left:
            consumer.seek(part, begins[part] if last is None else max(begins[part], ends[part] - last))
        heard = time.monotonic()
        while left and time.monotonic() - heard < IDLE_S:
            for part, records in (await consumer.getmany(*left, timeout_ms=POLL_MS, max_records=BATCH)).items():
                heard = time.monotonic()
                for record in records:
                    if record.offset < ends[part]:
                        yield record
            for part in list(left):
                if await consumer.position(part) >= ends[part]:
                    left.discard(part)


async def arriving(
    kafka: KafkaSettings, topic: str, *, from_beginning: bool = False
) -> AsyncGenerator[ConsumerRecord, None]:
    """The records that arrive from now on, or all of them from the first on; never ends by itself.

    Raises UnknownTopic, KafkaError, TimeoutError.
    """
    parts = await _partitions(kafka, topic)
    async with _consumer(kafka) as consumer:
        starts = await (consumer.beginning_offsets(parts) if from_beginning else end_offsets(kafka, parts))
        consumer.assign(parts)
        for part in parts:
            consumer.seek(part, starts[part])
        while True:
            for records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH)).values():
                for record in records:
                    yield record
