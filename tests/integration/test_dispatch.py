"""Dispatch as processes on a real broker: kills, moved partitions and a stopped worker neither lose nor charge twice."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Publisher
from schemas import topics
from schemas.records import State
from tests.integration.roles import (
    OUTPUTS,
    PARTITIONS,
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
TIERS = ("1s", "2s")


@pytest.fixture
async def kafka(stack: Stack) -> KafkaSettings:
    return settings_of(stack)


async def new_lane(kafka: KafkaSettings) -> str:
    """A lane of its own for each test."""
    lane = f"t{uuid.uuid4().hex[:8]}"
    await create_topics(kafka, topics.declare([lane], tiers=TIERS, lane_partitions=PARTITIONS))
    return lane


def roles_env(stack: Stack, lane: str, url: str, **more: Any) -> dict[str, str]:
    return environment(stack, {lane: {"provider": "simulator", "url": url, "limit": 200, "window_ms": 1000, **more}})


async def test_a_payment_settled_by_another_worker_is_never_called_again(stack: Stack, kafka: KafkaSettings) -> None:
    """Partitions move to a second worker and back; what it settled meanwhile is known to the first one."""
    lane = await new_lane(kafka)
    async with simulator() as provider, Publisher(kafka) as publisher, watching(kafka, OUTPUTS) as seen:
        env = roles_env(stack, lane, provider.url)
        async with process("streams", "dispatch", "--lane", lane, **env):
            early = [task_of(lane, n, payment_method="pm_503_twice") for n in range(PARTITIONS)]
            await publisher.publish([to_lane(task) for task in early])
            await until(lambda: seen.states(t.payment_id for t in early)[State.PENDING] == PARTITIONS, "first attempts")
            async with process("streams", "dispatch", "--lane", lane, **env), process("streams", "delay", **env):
                await until(
                    lambda: seen.states(t.payment_id for t in early)[State.COMPLETED] == PARTITIONS, "retries", 90
                )
            before = await provider.calls()
            late = [task_of(lane, n) for n in range(PARTITIONS)]
            again = [to_lane(replace(t, attempt=n), topics.due_topic(lane)) for t in early for n in (1, 2, 3, 4)]
            await publisher.publish(again + [to_lane(task) for task in late])
            await until(lambda: seen.states(t.payment_id for t in late)[State.COMPLETED] == PARTITIONS, "late ones", 90)
        after = await provider.calls()
        assert {key: after[key] for key in before} == before
        assert await provider.charges() == dict.fromkeys([t.payment_id for t in early + late], 1)
