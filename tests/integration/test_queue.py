"""What an ingress says of a queue that stands in real Kafka, while a worker tells over Redis how far it is."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as redis

from ops.kafka.admin import create_topics
from ops.kafka.clients import Message, Publisher
from ops.local.stack import Stack
from schemas import pulse, topics
from schemas.pulse import Head, Pulse
from tests.integration import http_role, roles

pytestmark = pytest.mark.kafka

PARTITIONS = 8
RATE = 50
BACKLOG = 2000


class Worker:
    """Says that it serves RATE a second of one topic, partition by partition in turn."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._began = time.monotonic()

    def served(self) -> int:
        """How many it has by now."""
        return int((time.monotonic() - self._began) * RATE)

    def word(self, beat: int) -> Pulse:
        """What it says."""
        served = self.served()
        heads = {
            (self._topic, part): Head((served + PARTITIONS - 1 - part) // PARTITIONS) for part in range(PARTITIONS)
        }
        return Pulse(beat, heads=heads)


@asynccontextmanager
async def telling(stack: Stack, lane: str, worker: Worker) -> AsyncIterator[None]:
    client = redis.from_url(stack.redis_url)

    async def tell() -> None:
        beat = 0
        while True:
            beat += 1
            await client.hset(pulse.dispatch(lane), "w", pulse.encode(worker.word(beat)))
            await asyncio.sleep(pulse.BEAT_S)

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        await client.aclose()


@pytest.mark.long
async def test_place_and_time_behind_two_thousand_at_fifty_a_second_are_right_within_five_percent(stack: Stack) -> None:
    lane = f"q{uuid.uuid4().hex[:8]}"
    kafka = roles.settings_of(stack)
    await http_role.prepare(stack)
    await create_topics(kafka, topics.declare([lane], lane_partitions=PARTITIONS))
    topic = topics.lane_topic(lane)
    waiting = [Message(topic, b"k", b"v", (), number % PARTITIONS) for number in range(BACKLOG)]
    async with Publisher(kafka) as publisher:
        await publisher.publish(waiting)
    limit = {"provider": "simulator", "url": "http://127.0.0.1:9", "limit": 52}
    settings = http_role.environment(stack) | {"LANES": json.dumps({lane: limit})}
    worker = Worker(topic)
    async with telling(stack, lane, worker), http_role.ingress(settings) as role:

        async def measured() -> dict[str, Any]:
            found: dict[str, Any] = (await role.http.get(f"/v1/lanes/{lane}")).json()
            return found if found.get("measured_s", 0) >= 12 else {}

        told = await http_role.until(measured, "the rate was measured")
        assert told["rate_per_s"] == pytest.approx(RATE, rel=0.05)
        assert told["backlog"] == pytest.approx(BACKLOG - worker.served(), rel=0.05)
        assert (told["breaker"], told["workers"], told["drained"]["reason"]) == ("closed", 1, None)
        for _ in range(5):
            queue = (await role.post(lane=lane)).json()["queue"]
            left = BACKLOG - worker.served()
            assert queue["reason"] is None
            assert queue["position"] == pytest.approx(left, rel=0.05)
            assert queue["eta_s"] == pytest.approx(left / RATE, rel=0.05)
