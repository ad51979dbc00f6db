"""What a group has done of its topics, seen from outside it, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from ops.kafka.clients import KafkaSettings
from ops.telemetry import logger

EVERY_S: Final = 1.0
ANSWER_S: Final = 5.0
AGAIN_S: Final = 5.0


class Told(Protocol):
    """Whom to tell."""

    def __call__(self, count: int, *, idle: bool) -> None:
        """The group has committed so many records more; ``idle``: all that there are."""
        ...


async def watch(kafka: KafkaSettings, group: str, parts: Sequence[TopicPartition], told: Told) -> None:
    """Tell about these partitions every second; never returns. While Kafka does not answer, nothing is told.

    Tansu tells the end of its last batch too low: there, a group may be called idle within that batch.
    """
    while True:
        try:
            await _watch(kafka, group, parts, told)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look tries again
            logger().info("what is done cannot be seen", action="done-unseen", group=group, error=type(error).__name__)
        await asyncio.sleep(AGAIN_S)


async def _watch(kafka: KafkaSettings, group: str, parts: Sequence[TopicPartition], told: Told) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap,
        group_id=group,
        enable_auto_commit=False,
        request_timeout_ms=int(ANSWER_S * 1000),
    )
    try:
        async with asyncio.timeout(ANSWER_S):
            await consumer.start()
        before: int | None = None
        while True:
            async with asyncio.timeout(ANSWER_S):
                done, idle = await _look(consumer, parts)
            told(0 if before is None else max(0, done - before), idle=idle)
            before = done
            await asyncio.sleep(EVERY_S)
    finally:
        async with asyncio.timeout(ANSWER_S):
            await consumer.stop()


async def _look(consumer: AIOKafkaConsumer, parts: Sequence[TopicPartition]) -> tuple[int, bool]:
    """The sum of the committed offsets, and whether they are the ends. It joins no group and fetches no record."""
    found = await consumer._coordinator.fetch_committed_offsets(list(parts))  # noqa: SLF001 - the public way asks for one partition at a time
    ends = await consumer.end_offsets(list(parts))
    committed = {part: max(0, found[part].offset) if part in found else 0 for part in parts}
    return sum(committed.values()), all(committed[part] >= ends[part] for part in parts)
