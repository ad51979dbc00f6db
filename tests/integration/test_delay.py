"""The delay role as a process, on a real broker: never early, hardly late, nothing lost by kills and rebalances."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Message, Publisher
from schemas import codec, topics
from schemas.records import DeadLetter, PaymentTask, TaskKind

if TYPE_CHECKING:
    from ops.local.stack import Stack

pytestmark = pytest.mark.kafka

LANE = "delaytest"
TIERS = ("1s", "3s", "2m")
DEADLINE_S = 45.0


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def task(not_before_ms: int, *, lane: str = LANE) -> PaymentTask:
    return PaymentTask(
        kind=TaskKind.CREATE,
        payment_id=str(uuid.uuid4()),
        merchant_id="acme",
        idempotency_key="k",
        fingerprint="f" * 64,
        amount_minor=100,
        currency="USD",
        payment_method="pm_approve",
        lane=lane,
        accepted_at_ms=wall_ms(),
        attempt=2,
        not_before_ms=not_before_ms,
    )


def waiting(item: PaymentTask, tier: str) -> Message:
    return Message(topics.retry_topic(tier), item.payment_id.encode(), codec.encode(item))


@dataclass
class Seen:
    """What arrived on the due topic and among the dead letters, with the wall clock at arrival."""

    tasks: dict[str, list[tuple[PaymentTask, int]]] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)

    def add(self, record: ConsumerRecord) -> None:
        if record.topic == topics.DEAD_LETTER:
            self.letters.append(codec.decode(record.value, DeadLetter))
        else:
            found = codec.decode(record.value, PaymentTask)
            assert record.key == found.payment_id.encode()
            self.tasks.setdefault(found.payment_id, []).append((found, wall_ms()))

    async def until(self, condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def watching(kafka: KafkaSettings) -> AsyncIterator[Seen]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, auto_offset_reset="latest", fetch_max_wait_ms=20, enable_auto_commit=False
    )
    await consumer.start()
    seen = Seen()
    parts = [TopicPartition(topics.due_topic(LANE), n) for n in range(8)]
    parts += [TopicPartition(topics.DEAD_LETTER, n) for n in range(12)]
    consumer.assign(parts)
    for part in parts:  # resolve every start before anything is sent
        await consumer.position(part)

    async def pump() -> None:
        async for record in consumer:
            seen.add(record)

    pumping = asyncio.create_task(pump())
    try:
        yield seen
    finally:
        pumping.cancel()
        await asyncio.wait({pumping})
        await consumer.stop()


@asynccontextmanager
async def role(kafka: KafkaSettings) -> AsyncIterator[asyncio.subprocess.Process]:
    env = os.environ | {
        "KAFKA_BOOTSTRAP": kafka.bootstrap,
        "KAFKA_DIALECT": kafka.dialect,
        "LANES": f'{{"{LANE}": {{"provider": "simulator"}}}}',
        "RETRY_TIERS": ",".join(TIERS),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "streams", "delay", env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()  # it leaves its group, so the next one need not wait for a session to end
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            raise


@pytest.fixture
async def kafka(stack: Stack) -> KafkaSettings:
    settings = KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect)
    await create_topics(settings, topics.declare([LANE], tiers=TIERS))
    return settings


async def warm_up(publisher: Publisher, seen: Seen) -> None:
    """Send one due task and wait for it: the role has joined its group."""
    first = task(wall_ms())
    await publisher.publish([waiting(first, "1s")])
    await seen.until(lambda: first.payment_id in seen.tasks)


@pytest.mark.alone
async def test_a_retry_is_never_early_and_hardly_late(kafka: KafkaSettings) -> None:
    async with watching(kafka) as seen, Publisher(kafka) as publisher, role(kafka):
        await warm_up(publisher, seen)
        items = [task(wall_ms() + 1000 + 60 * n) for n in range(20)]
        await publisher.publish([waiting(item, "1s") for item in items])
        await seen.until(lambda: all(item.payment_id in seen.tasks for item in items))
        late_ms = sorted(seen.tasks[item.payment_id][0][1] - item.not_before_ms for item in items)
        assert late_ms[0] >= 0
        assert late_ms[len(late_ms) // 2] <= 250, late_ms
        assert late_ms[-1] <= 1000, late_ms
        assert all(len(seen.tasks[item.payment_id]) == 1 for item in items)
        assert all(seen.tasks[item.payment_id][0][0] == item for item in items)


@pytest.mark.long
@pytest.mark.alone
async def test_a_long_tier_delays_no_short_one(kafka: KafkaSettings) -> None:
    async with watching(kafka) as seen, Publisher(kafka) as publisher, role(kafka):
        await warm_up(publisher, seen)
        longs = [task(wall_ms() + 120_000) for _ in range(40)]
        await publisher.publish([waiting(item, "2m") for item in longs])
        shorts = [task(wall_ms() + 1000) for _ in range(40)]
        await publisher.publish([waiting(item, "1s") for item in shorts])
        await seen.until(lambda: all(item.payment_id in seen.tasks for item in shorts))
        assert max(seen.tasks[item.payment_id][0][1] - item.not_before_ms for item in shorts) <= 1000
        assert not any(item.payment_id in seen.tasks for item in longs)


async def test_garbage_becomes_a_dead_letter_and_blocks_nothing(kafka: KafkaSettings) -> None:
    async with watching(kafka) as seen, Publisher(kafka) as publisher, role(kafka):
        await warm_up(publisher, seen)
        junk = uuid.uuid4().bytes
        good, lost = task(wall_ms() + 200), task(wall_ms(), lane="nosuchlane")
        homes = [Message(topics.retry_topic("1s"), None, junk, (), partition=0)]
        homes += [Message(topics.retry_topic("1s"), None, codec.encode(item), (), partition=0) for item in (lost, good)]
        await publisher.publish(homes)
        await seen.until(lambda: good.payment_id in seen.tasks)
        await seen.until(lambda: any(letter.payment_id == lost.payment_id for letter in seen.letters))
        await seen.until(lambda: any(letter.original == junk for letter in seen.letters))
        ours = {
            letter.reason for letter in seen.letters if letter.original == junk or letter.payment_id == lost.payment_id
        }
        assert ours == {"undecodable", "unknown-lane"}


@pytest.mark.long
async def test_a_kill_loses_no_retry_and_none_comes_early(kafka: KafkaSettings) -> None:
    async with watching(kafka) as seen, Publisher(kafka) as publisher:
        async with role(kafka) as process:
            await warm_up(publisher, seen)
            items = [task(wall_ms() + 300 + 5 * n) for n in range(300)]
            await publisher.publish([waiting(item, "3s") for item in items])
            await seen.until(lambda: sum(item.payment_id in seen.tasks for item in items) >= 50)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        async with role(kafka):
            await seen.until(lambda: all(item.payment_id in seen.tasks for item in items))
        assert all(at >= found.not_before_ms for item in items for found, at in seen.tasks[item.payment_id])


@pytest.mark.long
async def test_a_second_worker_joins_while_retries_wait(kafka: KafkaSettings) -> None:
    async with watching(kafka) as seen, Publisher(kafka) as publisher, role(kafka):
        await warm_up(publisher, seen)
        items = [task(wall_ms() + 3000 + 10 * n) for n in range(300)]
        await publisher.publish([waiting(item, "3s") for item in items])
        async with role(kafka) as second:
            await seen.until(lambda: all(item.payment_id in seen.tasks for item in items))
            second.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await second.wait() == 0
        assert all(at >= found.not_before_ms for item in items for found, at in seen.tasks[item.payment_id])
        after = task(wall_ms() + 100)
        await publisher.publish([waiting(after, "1s")])
        await seen.until(lambda: after.payment_id in seen.tasks)
