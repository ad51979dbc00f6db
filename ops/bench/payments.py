"""Payments by the thousand, written straight to Kafka as the roles before would have, and how far readers have come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from ops.bench.rig import LANE, NotMeasured
from ops.kafka import backlog
from ops.kafka.clients import KafkaSettings, Message, Publisher, end_offsets
from ops.kafka.reading import partition_counts
from schemas import codec, command, identity, topics
from schemas.records import CommandType, EventType, PaymentCommand, PaymentEvent, PaymentTask, State, TaskKind

MERCHANT: Final = "bench"
_CHUNK: Final = 2000
_READ_S: Final = 60.0


def _asked(run: str, number: int) -> PaymentCommand:
    key = f"{run}-{number:07}"
    return PaymentCommand(
        type=CommandType.CREATE,
        payment_id=identity.payment_id(MERCHANT, key),
        merchant_id=MERCHANT,
        idempotency_key=key,
        amount_minor=1250,
        currency="USD",
        payment_method="pm_approve",
        customer_id="customer-1",
        description="a payment of the bench",
        metadata={"order": key},
        accepted_at_ms=time.time_ns() // 1_000_000,
    )


def command_of(run: str, number: int) -> Message:
    """A create as ingress publishes it."""
    asked = _asked(run, number)
    return Message(topics.COMMANDS, (asked.payment_id or "").encode(), codec.encode(asked))


def task_of(run: str, number: int) -> Message:
    """A fresh task as intake publishes it."""
    asked = _asked(run, number)
    task = PaymentTask(
        kind=TaskKind.CREATE,
        payment_id=asked.payment_id or "",
        merchant_id=MERCHANT,
        idempotency_key=asked.idempotency_key or "",
        fingerprint=command.fingerprint(asked),
        amount_minor=1250,
        currency="USD",
        payment_method="pm_approve",
        lane=LANE,
        accepted_at_ms=asked.accepted_at_ms or 0,
    )
    return Message(topics.lane_topic(LANE), task.payment_id.encode(), codec.encode(task))


def event_of(run: str, number: int) -> Message:
    """A payment's first event as intake publishes it."""
    asked = _asked(run, number)
    event = PaymentEvent(
        type=EventType.STATE_CHANGED,
        version=1,
        state=State.PENDING,
        payment_id=asked.payment_id or "",
        merchant_id=MERCHANT,
        idempotency_key=asked.idempotency_key or "",
        fingerprint=command.fingerprint(asked),
        amount_minor=1250,
        currency="USD",
        payment_method="pm_approve",
        customer_id=asked.customer_id,
        description=asked.description,
        metadata=asked.metadata,
        lane=LANE,
        accepted_at_ms=asked.accepted_at_ms or 0,
        at_ms=asked.accepted_at_ms or 0,
    )
    return Message(topics.EVENTS, event.payment_id.encode(), codec.encode(event))


async def fill(
    kafka: KafkaSettings, of: Callable[[str, int], Message], run: str, count: int, copy: str | None = None
) -> None:
    """Publish so many unique records, all acked on return, and the same to the topic ``copy``. Raises PublishError."""
    async with Publisher(kafka) as publisher:
        for chunk in _chunks(of, run, count):
            await publisher.publish(chunk)
            if copy is not None:
                await publisher.publish([message._replace(topic=copy) for message in chunk])


def _chunks(of: Callable[[str, int], Message], run: str, count: int) -> Iterator[list[Message]]:
    for first in range(0, count, _CHUNK):
        yield [of(run, number) for number in range(first, min(count, first + _CHUNK))]


async def ends(kafka: KafkaSettings, *names: str) -> dict[TopicPartition, int]:
    """The offset after the last record of each partition of these topics."""
    counts = await partition_counts(kafka)
    return await end_offsets(kafka, [TopicPartition(name, number) for name in names for number in range(counts[name])])


async def stamps(
    kafka: KafkaSettings, begins: dict[TopicPartition, int], stops: dict[TopicPartition, int]
) -> list[float]:
    """When each record between these offsets was written, by its producer's clock in seconds. Raises NotMeasured."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False, fetch_max_wait_ms=100)
    left = {part for part, stop in stops.items() if stop > begins[part]}
    found: list[float] = []
    await consumer.start()
    try:
        consumer.assign(list(left))
        for part in left:
            consumer.seek(part, begins[part])
        async with asyncio.timeout(_READ_S):
            while left:
                for part, records in (await consumer.getmany(*left, timeout_ms=200)).items():
                    found += [record.timestamp / 1000 for record in records if record.offset < stops[part]]
                    if records and records[-1].offset + 1 >= stops[part]:
                        left.discard(part)
    except TimeoutError as error:
        raise NotMeasured(f"not within {_READ_S:g} s: reading back what was written") from error
    finally:
        await consumer.stop()
    return found


async def caught_up(kafka: KafkaSettings, group: str, topic: str) -> bool:
    """Whether this group has committed the topic to its end."""
    return not any((await backlog.backlog(kafka, {group: [topic]})).values())
