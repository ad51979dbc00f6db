"""Real roles for tests: ``python -m streams`` and the simulator as processes, and what arrives on the topics."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from ops.kafka.clients import KafkaSettings, Message, end_offsets, partition_for
from ops.local import child
from ops.local.ports import free_port
from ops.local.stack import Stack
from schemas import codec, topics
from schemas.records import DeadLetter, PaymentEvent, PaymentResult, PaymentTask, State, TaskKind

DEADLINE_S = 60.0
PARTITIONS = 8


def settings_of(stack: Stack) -> KafkaSettings:
    return KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect)


async def until(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Wait until the condition holds. Raises AssertionError that says what did not come."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.02)


async def all_settled(seen: Arrived, ids: list[str], count: int | None = None, stand_s: float = DEADLINE_S) -> None:
    """Wait until so many payments (all) are completed; a slow machine may take long, but never ``stand_s`` for none."""
    wanted = len(ids) if count is None else count
    done = -1
    while done < wanted:
        before = done
        await until(
            lambda: seen.states(ids)[State.COMPLETED] > before,  # noqa: B023 - awaited at once
            f"another payment than the {before} of {wanted} settled",
            stand_s,
        )
        done = seen.states(ids)[State.COMPLETED]


@asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``python -m`` these arguments; ended at the block's end, however it ends."""
    found = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, env=os.environ | environment, preexec_fn=child.bind_to_parent
    )
    try:
        yield found
    finally:
        if found.returncode is None:
            found.terminate()
            try:
                await asyncio.wait_for(found.wait(), 15)
            except TimeoutError:
                found.kill()
                await found.wait()


def environment(stack: Stack, lanes: dict[str, dict[str, Any]], **more: str) -> dict[str, str]:
    """The settings of a stream role on this stack."""
    return {
        "KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "KAFKA_DIALECT": stack.kafka_dialect,
        "REDIS_URL": stack.redis_url,
        "DATABASE_URL": "",
        "LANES": json.dumps(lanes),
        "RETRY_TIERS": "1s,2s",
        "LANE_PARTITIONS": str(PARTITIONS),
        **more,
    }


@dataclass
class Provider:
    """A running simulator."""

    url: str
    http: httpx2.AsyncClient

    async def observed(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get(f"{self.url}/observed")).json()
        return found

    async def calls(self) -> Counter[tuple[str, str]]:
        """How often each payment was asked for, by (method, payment id)."""
        found: Counter[tuple[str, str]] = Counter()
        for seen in (await self.observed())["requests"]:
            found[seen["method"], seen["key"] or seen["path"].rpartition("/")[2]] += 1
        return found

    async def most_in_a_window(self) -> int:
        """The most requests that arrived in any window of the provider's."""
        found = await self.observed()
        times = sorted(call["arrived_ns"] for call in found["requests"])
        most = first = 0
        for last, at in enumerate(times):
            while at - times[first] >= found["window_ns"]:
                first += 1
            most = max(most, last - first + 1)
        return most

    async def charges(self) -> Counter[str]:
        """Approved charges by payment."""
        charges = (await self.observed())["charges"]
        return Counter(charge["reference"] for charge in charges if charge["status"] == "approved")


@asynccontextmanager
async def simulator(*, limit: int = 1000, latency_ms: int = 0) -> AsyncIterator[Provider]:
    port = free_port()
    arguments = ["--port", str(port), "--limit", str(limit), "--latency-ms", str(latency_ms)]
    async with process("ops.simulator", *arguments), httpx2.AsyncClient(timeout=10) as http:
        provider = Provider(f"http://127.0.0.1:{port}", http)
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                await http.get(f"{provider.url}/healthz")
                break
            except httpx2.TransportError:
                assert time.monotonic() < end, "the simulator did not start"
                await asyncio.sleep(0.05)
        yield provider


def task_of(lane: str, partition: int | None = None, **changes: Any) -> PaymentTask:
    """A task of a fresh payment, at home on this partition if one is named."""
    while True:
        payment_id = str(uuid.uuid4())
        if partition is None or partition_for(payment_id.encode(), PARTITIONS) == partition:
            break
    return PaymentTask(
        **{
            "kind": TaskKind.CREATE,
            "payment_id": payment_id,
            "merchant_id": "acme",
            "idempotency_key": f"k-{payment_id}",
            "fingerprint": "ab" * 32,
            "amount_minor": 1250,
            "currency": "USD",
            "payment_method": "pm_approve",
            "lane": lane,
            "accepted_at_ms": time.time_ns() // 1_000_000,
            **changes,
        }
    )


def to_lane(task: PaymentTask, topic: str | None = None) -> Message:
    return Message(topic or topics.lane_topic(task.lane), task.payment_id.encode(), codec.encode(task))


@dataclass
class Arrived:
    """What arrived on the topics since the watch began."""

    records: dict[str, list[ConsumerRecord]] = field(default_factory=dict)
    events: dict[str, list[PaymentEvent]] = field(default_factory=dict)
    results: dict[str, list[PaymentResult]] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    tasks: dict[str, list[PaymentTask]] = field(default_factory=dict)
    """What was forwarded to a lane, by payment."""

    def add(self, record: ConsumerRecord) -> None:
        self.records.setdefault(record.topic, []).append(record)
        if record.topic == topics.EVENTS:
            event = codec.decode(record.value, PaymentEvent)
            self.events.setdefault(event.payment_id, []).append(event)
        elif record.topic == topics.RESULTS:
            result = codec.decode(record.value, PaymentResult)
            self.results.setdefault(result.payment_id, []).append(result)
        elif record.topic == topics.DEAD_LETTER:
            self.letters.append(codec.decode(record.value, DeadLetter))
        elif record.topic.startswith("payments.lane.") and not record.topic.endswith((".due", ".cancel")):
            task = codec.decode(record.value, PaymentTask)
            assert record.key == task.payment_id.encode()
            self.tasks.setdefault(task.payment_id, []).append(task)

    def state(self, payment_id: str) -> State | None:
        """The state in the event with the highest version."""
        found = self.events.get(payment_id)
        return max(found, key=lambda event: event.version).state if found else None

    def states(self, ids: Iterable[str]) -> Counter[State | None]:
        return Counter(self.state(payment_id) for payment_id in ids)


@asynccontextmanager
async def watching(kafka: KafkaSettings, counts: dict[str, int]) -> AsyncIterator[Arrived]:
    """Read these topics (name to number of partitions) from their present ends on."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, enable_auto_commit=False, fetch_max_wait_ms=20, auto_offset_reset="earliest"
    )
    parts = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    ends = await end_offsets(kafka, parts)
    await consumer.start()
    consumer.assign(parts)
    for part, end in ends.items():
        consumer.seek(part, end)
    arrived = Arrived()

    async def pump() -> None:
        async for record in consumer:
            arrived.add(record)

    pumping = asyncio.create_task(pump())
    try:
        yield arrived
    finally:
        pumping.cancel()
        await asyncio.wait({pumping})
        await consumer.stop()


OUTPUTS = {topics.EVENTS: 12, topics.RESULTS: 12, topics.DEAD_LETTER: 12}


async def until_ready(port: int) -> None:
    """Wait until a role has its partitions."""
    end = time.monotonic() + DEADLINE_S
    async with httpx2.AsyncClient(timeout=10) as http:
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            assert time.monotonic() < end, "the role is not ready"
            await asyncio.sleep(0.05)


async def metrics(port: int) -> dict[str, float]:
    """What a role's /metrics says: samples by name with labels, as written."""
    async with httpx2.AsyncClient(timeout=10) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    samples = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in samples}


async def last_values(kafka: KafkaSettings, topic: str, partition: int) -> dict[bytes, bytes | None]:
    """The last value of each key of a partition, as compaction would leave them."""
    part = TopicPartition(topic, partition)
    end = (await end_offsets(kafka, [part]))[part]
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    await consumer.start()
    found: dict[bytes, bytes | None] = {}
    try:
        consumer.assign([part])
        consumer.seek(part, 0)
        at = 0
        while at < end:
            for record in (await consumer.getmany(part, timeout_ms=200)).get(part, []):
                found[record.key] = record.value
                at = record.offset + 1
    finally:
        await consumer.stop()
    return found
