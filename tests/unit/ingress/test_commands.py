"""The way to Kafka: it is looked for at the start and after a failure, and meanwhile nobody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from aiokafka.errors import KafkaConnectionError

from ingress.commands import Commands
from ingress.presence import Away
from ops.kafka.clients import Message, PublishTimedOut, RecordRefused
from schemas.seal import HEADER, Seals
from tests.unit.ingress.test_batches import until

MESSAGE = Message("payments.commands", b"k", b"v")


class Publisher:
    """Stands in for ops.kafka.clients.Publisher."""

    def __init__(self) -> None:
        self.there = True
        self.running = False
        self.starts = 0
        self.stops = 0
        self.tries = 0
        self.error: Exception | None = None
        self.hang = False
        self.published: list[Message] = []

    async def start(self) -> None:
        self.starts += 1
        if not self.there:
            raise KafkaConnectionError
        self.running = True

    async def stop(self) -> None:
        self.stops += 1
        self.running = False

    async def ping(self, topic: str = "") -> None:
        assert topic == "payments.commands"
        if not self.there:
            raise KafkaConnectionError

    async def publish(self, messages: Sequence[Message], timeout_s: float) -> None:
        self.tries += 1
        if self.hang:
            await asyncio.sleep(timeout_s)
            raise PublishTimedOut("no ack")
        if self.error is not None:
            raise self.error
        self.published += messages


def made(publisher: Publisher, seals: Seals | None = None) -> Commands:
    return Commands(publisher, seals, rest_s=0.02)  # type: ignore[arg-type]


async def test_the_start_waits_for_nobody() -> None:
    publisher = Publisher()
    publisher.there = False
    began = time.monotonic()
    async with made(publisher) as commands:
        with pytest.raises(PublishTimedOut):
            await commands.publish(MESSAGE, 1.4)
        with pytest.raises(Away):
            await commands.ping()
        assert time.monotonic() - began < 1.3  # less than the wait for an ack
        await until(lambda: publisher.starts > 2)
        publisher.there = True
        await until(lambda: not commands.away)
        await commands.publish(MESSAGE, 1.4)
        await commands.ping()
    assert not publisher.running


async def test_one_time_out_spares_all_others_the_wait() -> None:
    publisher = Publisher()
    async with made(publisher) as commands:
        await until(lambda: not commands.away)
        publisher.hang, publisher.there = True, False
        asking = [asyncio.create_task(commands.publish(MESSAGE, 0.5)) for _ in range(50)]
        done, _ = await asyncio.wait(asking, timeout=2)
        assert all(isinstance(task.exception(), PublishTimedOut) for task in done)
        tries = publisher.tries
        for _ in range(50):
            with pytest.raises(PublishTimedOut):
                await commands.publish(MESSAGE, 0.5)
        assert publisher.tries == tries
        publisher.hang, publisher.there = False, True
        await until(lambda: not commands.away)
        await commands.publish(MESSAGE, 0.5)
        assert publisher.starts == 1  # the connection was kept


async def test_a_wait_that_was_cut_short_tells_nothing() -> None:
    publisher = Publisher()
    async with made(publisher) as commands:
        await until(lambda: not commands.away)
        publisher.hang = True
        with pytest.raises(PublishTimedOut):
            await commands.publish(MESSAGE, 0.1)
        publisher.hang = False
        await commands.publish(MESSAGE, 0.1)


async def test_one_slow_partition_is_not_kafka() -> None:
    publisher = Publisher()
    async with made(publisher) as commands:
        await until(lambda: not commands.away)
        publisher.hang = True
        slow = asyncio.create_task(commands.publish(MESSAGE, 0.5))
        await until(lambda: publisher.tries == 1)
        publisher.hang = False
        await commands.publish(MESSAGE, 0.5)
        with pytest.raises(PublishTimedOut):
            await slow
        await commands.publish(MESSAGE, 0.5)


async def test_a_refused_record_says_nothing_about_kafka() -> None:
    publisher = Publisher()
    async with made(publisher) as commands:
        await until(lambda: not commands.away)
        publisher.error = RecordRefused(0, ValueError("too large"))
        with pytest.raises(RecordRefused):
            await commands.publish(MESSAGE, 0.5)
        publisher.error = None
        await commands.publish(MESSAGE, 0.5)


async def test_a_producer_whose_sender_died_is_replaced() -> None:
    publisher = Publisher()
    async with made(publisher) as commands:
        await until(lambda: not commands.away)
        publisher.running = False
        publisher.error = PublishTimedOut("OutOfOrderSequenceNumber")
        with pytest.raises(PublishTimedOut):
            await commands.publish(MESSAGE, 0.5)
        publisher.error = None
        await until(lambda: not commands.away)
        assert publisher.starts == 2
        await commands.publish(MESSAGE, 0.5)


async def test_whatever_goes_to_kafka_is_sealed_in_that_moment_beside_its_other_headers() -> None:
    """One by one from requests, in batches from the outbox: there is no other way out of the ingress."""
    publisher, seals = Publisher(), Seals(["a secret of the tests, longer than 32 bytes"])
    traced = Message("payments.commands", b"k", b"w", (("traceparent", b"00-1"),))
    async with made(publisher, seals) as commands:
        await until(lambda: not commands.away)
        before = time.time_ns() // 1_000_000
        await commands.publish(MESSAGE, 0.5)
        await commands.publish_all([MESSAGE, traced], 0.5)
    sealed = [dict(message.headers)[HEADER] for message in publisher.published]
    moments = [seals.sealed_at(value, seal) for value, seal in zip((b"v", b"v", b"w"), sealed, strict=True)]
    assert all(at_ms is not None and before <= at_ms <= before + 5000 for at_ms in moments)
    assert publisher.published[2].headers[0] == ("traceparent", b"00-1")
    assert [(message.topic, message.key) for message in publisher.published] == [("payments.commands", b"k")] * 3


async def test_without_a_secret_nothing_is_sealed() -> None:
    publisher = Publisher()
    async with made(publisher) as commands:
        await until(lambda: not commands.away)
        await commands.publish(MESSAGE, 0.5)
    assert publisher.published == [MESSAGE]
