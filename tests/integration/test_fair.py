"""Fair share on real servers: who sends a few payments does not wait for the backlog of one who sends thousands."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from ops.kafka import done
from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Message, Publisher
from schemas import identity, topics
from tests.integration.roles import (
    PARTITIONS,
    Arrived,
    Provider,
    environment,
    process,
    settings_of,
    simulator,
    task_of,
    to_lane,
    until,
    watching,
)

if TYPE_CHECKING:
    from ops.local.stack import Stack

pytestmark = pytest.mark.kafka

RATE, SLOWER = 20, 4
"""Calls a second: with many records of a queue's partition in hand, and with few (see ``streams.queues``)."""
SMALL, EACH = 5, 10
FAIR = SMALL * EACH + EACH
"""On which call the last small one is, at the latest, where all merchants share the calls equally."""


@pytest.fixture
async def kafka(stack: Stack) -> KafkaSettings:
    return settings_of(stack)


@dataclass
class Backlog:
    """One heavy merchant's payments, all routed, then those of the small ones behind them; dispatch has not begun."""

    small: list[str]
    heavy_by_level: list[int]


def commands(lane: str, merchant: str, keys: list[str]) -> list[Message]:
    fields = {"type": "create", "amount": "12.50", "currency": "USD", "payment_method": "pm_approve", "lane": lane}
    return [
        Message(
            topics.COMMANDS,
            identity.payment_id(merchant, key).encode(),
            json.dumps(fields | {"merchant_id": merchant, "idempotency_key": key}).encode(),
        )
        for key in keys
    ]


async def filled(stack: Stack, kafka: KafkaSettings, lane: str, count: int, rate: int) -> Backlog:
    """Fill a lane through intake: ``count`` of one merchant's, then a few of others."""
    await create_topics(kafka, topics.declare([lane], tiers=("1s", "2s")))
    names = topics.queue_topics(lane)
    env = environment(stack, {lane: {"provider": "simulator", "limit": rate}})
    smalls = [f"small-{number}-{lane}" for number in range(SMALL)]
    keys = [str(number) for number in range(EACH)]
    async with Publisher(kafka) as publisher, watching(kafka, dict.fromkeys(names, PARTITIONS)) as seen:
        async with process("streams", "intake", **env):
            for at in range(0, count, 2000):
                some = [str(number) for number in range(at, min(count, at + 2000))]
                await publisher.publish(commands(lane, f"heavy-{lane}", some))
            await until(functools.partial(all_there, seen, count), f"{count} are routed", 300)
            by_level = [len(seen.records.get(name, [])) for name in names]
            for merchant in smalls:
                await publisher.publish(commands(lane, merchant, keys))
            await until(functools.partial(all_there, seen, count + SMALL * EACH), "the small ones, too")
        assert len(seen.records[names[0]]) - by_level[0] == SMALL * EACH, "nobody who sends ten leaves the first level"
    return Backlog([identity.payment_id(merchant, key) for merchant in smalls for key in keys], by_level)


def all_there(seen: Arrived, count: int) -> bool:
    return len(seen.tasks) >= count


async def called(provider: Provider) -> AsyncIterator[list[str]]:
    """The payments that the provider was called for, in the order of the calls, again and again."""
    while True:
        yield [call["key"] for call in (await provider.observed())["requests"] if call["method"] == "POST"]
        await asyncio.sleep(0.2)


async def served(stack: Stack, lane: str, wanted: set[str], rate: int) -> int:
    """Let dispatch begin, and stop it once these are all called; on which call the last one was."""
    async with simulator() as provider:
        env: dict[str, Any] = environment(stack, {lane: {"provider": "simulator", "url": provider.url, "limit": rate}})
        async with process("streams", "dispatch", "--lane", lane, **env), asyncio.timeout(120):
            async for order in called(provider):
                if wanted <= set(order):
                    break
        assert len(order) == len(set(order))
    return max(order.index(payment_id) for payment_id in wanted) + 1


async def fair(stack: Stack, kafka: KafkaSettings, count: int, rate: int) -> int:
    """On which call the last small payment was.

    The payments are the same in each run: how evenly few keys fall on the partitions is chance, and no rule of ours.
    """
    lane = f"fair{count}"
    backlog = await filled(stack, kafka, lane, count, rate)
    last = await served(stack, lane, set(backlog.small), rate)
    sys.stderr.write(f"heavy by queue {backlog.heavy_by_level}, the last small one on call {last}, fair {FAIR}\n")
    return last


@pytest.mark.long
async def test_who_sends_a_few_does_not_wait_for_who_sent_hundreds(stack: Stack, kafka: KafkaSettings) -> None:
    """In one line it would come after 400 calls."""
    assert await fair(stack, kafka, 400, SLOWER) <= 2 * FAIR


@pytest.mark.alone
@pytest.mark.timeout(600)
@pytest.mark.long
async def test_who_sends_a_few_is_done_within_twice_its_fair_time_behind_sixty_thousand(
    stack: Stack, kafka: KafkaSettings
) -> None:
    assert await fair(stack, kafka, 60_000, RATE) <= 2 * FAIR


@pytest.mark.long
async def test_what_stood_in_a_lane_before_it_had_levels_is_served_once_they_are_there(
    stack: Stack, kafka: KafkaSettings
) -> None:
    """An upgrade: the lane's one topic of old is the first of its queues."""
    lane = f"o{uuid.uuid4().hex[:8]}"
    wanted = topics.declare([lane], tiers=("1s", "2s"))
    levels = sorted(topics.queue_topics(lane)[1:])
    old, new = [task_of(lane) for _ in range(20)], [task_of(lane) for _ in levels]
    await create_topics(kafka, [topic for topic in wanted if topic.name not in levels])
    async with Publisher(kafka) as publisher:
        await publisher.publish([to_lane(task) for task in old])
        assert sorted(await create_topics(kafka, wanted)) == levels
        await publisher.publish([to_lane(task, name) for task, name in zip(new, levels, strict=True)])
    last = await served(stack, lane, {task.payment_id for task in (*old, *new)}, RATE)
    assert last == len(old) + len(new)


async def test_what_a_lane_has_done_is_seen_by_who_is_not_in_its_group(kafka: KafkaSettings) -> None:
    lane, group = f"d{uuid.uuid4().hex[:8]}", f"g{uuid.uuid4().hex}"
    await create_topics(kafka, topics.declare([lane], tiers=("1s",)))
    parts = [TopicPartition(name, number) for name in topics.queue_topics(lane) for number in range(PARTITIONS)]
    told: list[tuple[int, bool]] = []

    def tell(count: int, *, idle: bool) -> None:
        told.append((count, idle))

    watching = asyncio.create_task(done.watch(kafka, group, parts, tell))
    await until(lambda: told == [(0, True)], "nothing is there, and all of it is done")
    async with Publisher(kafka) as publisher:
        for _ in range(3):  # one batch each: Tansu tells the end of its last batch only
            await publisher.publish([to_lane(task_of(lane, partition=5))])
    await until(lambda: told[-1] == (0, False), "three are there")
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topics.lane_topic(lane), 5)])
    for offset, idle in ((2, False), (3, True)):
        await consumer.commit({TopicPartition(topics.lane_topic(lane), 5): offset})
        await until(functools.partial(told.__contains__, (2 - idle, idle)), f"{offset} are done")
    await consumer.stop()
    watching.cancel()
