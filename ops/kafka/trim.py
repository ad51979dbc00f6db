"""Housekeeping: what a topic holds, and the deletion of work that is done.

Work topics never expire by time, as a backlog may be older than any retention. What lies below the offset that a
topic's only group has committed is done with, and is deleted here; commands stay for a while, for whoever asks what was
sent.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError

from ops.kafka import backlog
from ops.kafka.clients import KafkaSettings, end_offsets
from ops.kafka.reading import partition_counts
from schemas import topics

KEEP_COMMANDS_S: Final = 7 * 86_400
READ_BY_OTHERS: Final = frozenset({topics.EVENTS, topics.RESULTS, topics.DEAD_LETTER})
"""Topics that are no work of one group: consumers of others read them, and time ends them."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What the partitions of a topic hold: the first offset there and the one after the last, by partition number."""

    begins: dict[int, int]
    ends: dict[int, int]

    @property
    def records(self) -> int:
        """How many offsets that is: no fewer than there are records."""
        return sum(max(0, end - self.begins.get(number, 0)) for number, end in self.ends.items())


@asynccontextmanager
async def _looking_at(kafka: KafkaSettings, parts: list[TopicPartition]) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that fetches nothing, but knows these partitions: asked for others, it learns one topic a round."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign(parts)
        consumer.pause(*parts)
        yield consumer
    finally:
        await consumer.stop()


async def extents(kafka: KafkaSettings, prefixes: tuple[str, ...]) -> dict[str, Extent]:
    """What each topic whose name begins so holds. Raises KafkaError, TimeoutError."""
    counts = await partition_counts(kafka)
    names = sorted(name for name in counts if name.startswith(prefixes))
    parts = [TopicPartition(name, number) for name in names for number in range(counts[name])]
    if not parts:
        return {}
    async with _looking_at(kafka, parts) as consumer:
        begins = await consumer.beginning_offsets(parts)
        ends = await consumer.end_offsets(parts)
    if kafka.dialect == "tansu":
        ends = await end_offsets(kafka, parts, timeout_s=60.0)
    return {
        name: Extent(
            {part.partition: begins[part] for part in parts if part.topic == name},
            {part.partition: ends[part] for part in parts if part.topic == name},
        )
        for name in names
    }


def plan(
    committed: Mapping[TopicPartition, int], begins: Mapping[TopicPartition, int], young: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Partition to the offset below which records may go. Pure.

    Never above the committed offset, nor above ``young``, the first offset that is to be kept for its age.
    """
    found: dict[TopicPartition, int] = {}
    for part, offset in committed.items():
        before = min(offset, young.get(part, offset))
        if part.topic not in READ_BY_OTHERS and before > begins.get(part, 0):
            found[part] = before
    return found


@dataclass(frozen=True, slots=True)
class Trim:
    """What may be deleted, and where each partition begins now."""

    before: dict[TopicPartition, int]
    begins: dict[TopicPartition, int]

    def by_topic(self) -> dict[str, int]:
        """Topic to the number of records below the bound."""
        found: dict[str, int] = {}
        for part, before in sorted(self.before.items()):
            found[part.topic] = found.get(part.topic, 0) + before - self.begins.get(part, 0)
        return found


async def look(
    kafka: KafkaSettings, lanes: Iterable[str], tiers: Iterable[str], *, keep_commands_s: float = KEEP_COMMANDS_S
) -> Trim:
    """What may be deleted now. Raises KafkaError, TimeoutError."""
    groups = backlog.groups(lanes, tiers)
    groups.pop(topics.SINK_APP, None)
    committed = {
        part: offset for parts in (await backlog.committed(kafka, groups)).values() for part, offset in parts.items()
    }
    if not committed:
        return Trim({}, {})
    async with _looking_at(kafka, list(committed)) as consumer:
        begins = await consumer.beginning_offsets(list(committed))
        asked = {
            part: int((time.time() - keep_commands_s) * 1000) for part in committed if part.topic == topics.COMMANDS
        }
        answers = await consumer.offsets_for_times(asked) if asked else {}
    return Trim(plan(committed, begins, {part: at.offset for part, at in answers.items() if at is not None}), begins)


async def delete(kafka: KafkaSettings, before: Mapping[TopicPartition, int]) -> dict[str, str]:
    """Delete these records; topic to error's name for each that the broker refused. Raises KafkaError, TimeoutError."""
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap, request_timeout_ms=30_000)
    refused: dict[str, str] = {}
    try:
        await client.start()
        for name in sorted({part.topic for part in before}):
            asked = {part: RecordsToDelete(offset) for part, offset in before.items() if part.topic == name}
            try:
                await client.delete_records(asked)
            except KafkaError as error:  # the other topics need not wait for this one
                refused[name] = type(error).__name__
    finally:
        await client.close()
    return refused
