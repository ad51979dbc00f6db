"""How much of each topic its group has still to do: ends of the partitions against committed offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError

from ops.kafka.clients import KafkaSettings, end_offsets
from ops.kafka.reading import partition_counts
from schemas import topics


def groups(lanes: Iterable[str], tiers: Iterable[str]) -> dict[str, list[str]]:
    """Consumer group to the work topics it reads."""
    found = {topics.INTAKE_APP: [topics.COMMANDS]}
    for lane in lanes:
        found[topics.dispatch_app(lane)] = [
            *topics.queue_topics(lane), topics.due_topic(lane), topics.cancel_topic(lane),
        ]  # fmt: skip
    found[topics.DELAY_GROUP] = [topics.retry_topic(tier) for tier in tiers]
    found[topics.SINK_APP] = [topics.EVENTS, topics.DEAD_LETTER]
    return found


async def committed(
    kafka: KafkaSettings, wanted: Mapping[str, list[str]], *, timeout_s: float = 20.0
) -> dict[str, dict[TopicPartition, int]]:
    """Committed offsets of these groups on all partitions of their topics; 0 where none was committed yet.

    Raises KafkaError, TimeoutError.
    """

    async def of(group: str, names: list[str]) -> dict[TopicPartition, int]:
        found = {TopicPartition(name, number): 0 for name in names for number in range(counts.get(name, 0))}
        if not found:
            return {}
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(list(found))
            offsets = await asyncio.gather(*(consumer.committed(part) for part in found))
            return {part: offset or 0 for part, offset in zip(found, offsets, strict=True)}
        except IllegalStateError:
            return {}
        finally:
            await consumer.stop()

    async with asyncio.timeout(timeout_s):
        counts = await partition_counts(kafka)
        answers = await asyncio.gather(*(of(group, names) for group, names in wanted.items()))
    return dict(zip(wanted, answers, strict=True))


async def backlog(kafka: KafkaSettings, wanted: Mapping[str, list[str]]) -> dict[str, int]:
    """Records of each topic that its group has not finished. Raises KafkaError, TimeoutError."""
    done = await committed(kafka, wanted)
    ends = await end_offsets(kafka, [part for parts in done.values() for part in parts])
    found: dict[str, int] = {}
    for parts in done.values():
        for part, offset in parts.items():
            found[part.topic] = found.get(part.topic, 0) + max(0, ends.get(part, 0) - offset)
    return found
