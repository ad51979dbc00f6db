"""Intake as processes on a real broker: kills, rebalances and failed publications lose no command and double none."""

from __future__ import annotations

import asyncio
import functools
import json
import signal
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Message, Publisher
from ops.local.ports import free_port
from schemas import codec, identity, topics
from schemas.records import CommandType, PaymentCommand, PaymentTask, State
from tests.integration.roles import (
    OUTPUTS,
    PARTITIONS,
    Arrived,
    environment,
    process,
    settings_of,
    until,
    until_ready,
    watching,
)

if TYPE_CHECKING:
    from ops.local.stack import Stack

pytestmark = pytest.mark.kafka

LANE = "intaketest"
COMMAND_PARTITIONS = 12
WATCHED = OUTPUTS | dict.fromkeys((*topics.queue_topics(LANE), topics.cancel_topic(LANE)), PARTITIONS)


@pytest.fixture
async def kafka(stack: Stack) -> KafkaSettings:
    settings = settings_of(stack)
    await create_topics(settings, topics.declare([LANE], tiers=("1s", "2s")))
    return settings


@pytest.fixture
def env(stack: Stack) -> dict[str, str]:
    return environment(stack, {LANE: {"provider": "simulator"}})


def create(key: str, partition: int | None = None, **changes: Any) -> Message:
    """A create in JSON; with ``partition`` it stands there, at home or not."""
    fields = {
        "type": "create",
        "merchant_id": "acme",
        "idempotency_key": key,
        "amount": "12.50",
        "currency": "USD",
        "payment_method": "pm_approve",
        **changes,
    }
    return Message(topics.COMMANDS, key.encode(), json.dumps(fields).encode(), partition=partition)


def ids_of(keys: list[str]) -> list[str]:
    return [identity.payment_id("acme", key) for key in keys]


def all_pending(seen: Arrived, ids: list[str]) -> bool:
    return seen.states(ids)[State.PENDING] == len(ids) and set(ids) <= seen.tasks.keys()


def assert_each_once_or_the_same(seen: Arrived, ids: list[str]) -> None:
    """A replay after a crash forwards the same again; what is not the same would be a second payment.

    It may choose another level of the lane's queues, and then tells that one.
    """
    for payment_id in ids:
        assert len({codec.encode(task) for task in seen.tasks[payment_id]}) == 1
        assert len({codec.encode(replace(event, level=0)) for event in seen.events[payment_id]}) == 1


async def warm_up(publisher: Publisher, seen: Arrived) -> None:
    """Wait until every partition is read: a command for each has come through."""
    keys = [uuid.uuid4().hex for _ in range(3 * COMMAND_PARTITIONS)]
    await publisher.publish([create(key, n % COMMAND_PARTITIONS) for n, key in enumerate(keys)])
    await until(functools.partial(all_pending, seen, ids_of(keys)), "intake runs")


@pytest.mark.long
async def test_kills_under_load_lose_no_command_and_double_none(kafka: KafkaSettings, env: dict[str, str]) -> None:
    async with Publisher(kafka) as publisher, watching(kafka, WATCHED) as seen:
        keys = [uuid.uuid4().hex for _ in range(1500)]
        ids = ids_of(keys)
        messages = [create(key, (n + twin) % COMMAND_PARTITIONS) for twin in range(2) for n, key in enumerate(keys)]
        await publisher.publish(messages)
        for share in (1, 500):
            async with process("streams", "intake", **env) as intake:
                await until(lambda share=share: len(seen.tasks) >= share, f"{share} forwarded")  # type: ignore[misc]
                intake.send_signal(signal.SIGKILL)
                await intake.wait()
        async with process("streams", "intake", **env):
            await until(functools.partial(all_pending, seen, ids), "all are forwarded", 90)
            after = uuid.uuid4().hex
            again = [create(key, 5) for key in keys[:50]] + [create(after, 5)]
            before = {payment_id: len(tasks) for payment_id, tasks in seen.tasks.items()}
            await publisher.publish(again)
            await until(functools.partial(all_pending, seen, ids_of([after])), "a new one")
        assert_each_once_or_the_same(seen, ids)
        assert not [letter for letter in seen.letters if letter.payment_id in set(ids)]
        assert all(len(seen.tasks[i]) == before[i] for i in ids[:50])


@pytest.mark.long
async def test_partitions_that_move_under_load_lose_no_command(kafka: KafkaSettings, env: dict[str, str]) -> None:
    async with (
        Publisher(kafka) as publisher,
        watching(kafka, WATCHED) as seen,
        process("streams", "intake", **env) as one,
    ):
        await warm_up(publisher, seen)
        keys: list[str] = []

        async def send(count: int) -> None:
            fresh = [uuid.uuid4().hex for _ in range(count)]
            keys.extend(fresh)
            await publisher.publish([create(key, n % COMMAND_PARTITIONS) for n, key in enumerate(fresh)])

        port = free_port()
        async with process("streams", "intake", **env, ADMIN_PORT=str(port)) as two:
            joining = asyncio.create_task(until_ready(port))
            while not joining.done():
                await send(50)
                await until(lambda: len(seen.tasks) + 400 > len(keys), "it moves on")
            await joining
            await send(1000)
            two.send_signal(signal.SIGTERM)
            assert await two.wait() == 0
        await until(functools.partial(all_pending, seen, ids_of(keys)), "all are forwarded", 90)
        assert_each_once_or_the_same(seen, ids_of(keys))
        assert one.returncode is None


@pytest.mark.long
async def test_a_publication_that_fails_ends_the_role_and_commits_nothing(
    kafka: KafkaSettings, env: dict[str, str]
) -> None:
    async with Publisher(kafka) as publisher, watching(kafka, WATCHED) as seen:
        keys = [uuid.uuid4().hex for _ in range(400)]
        await publisher.publish([create(key, n % COMMAND_PARTITIONS) for n, key in enumerate(keys)])
        async with process("tests.integration.failing_publish", "intake", **env) as intake:
            assert await intake.wait() == 1
        async with process("streams", "intake", **env):
            await until(functools.partial(all_pending, seen, ids_of(keys)), "all are forwarded", 90)
        assert_each_once_or_the_same(seen, ids_of(keys))


async def test_each_kind_of_command_ends_where_it_should(kafka: KafkaSettings, env: dict[str, str]) -> None:
    async with Publisher(kafka) as publisher, watching(kafka, WATCHED) as seen, process("streams", "intake", **env):
        await warm_up(publisher, seen)
        key, lost, pan = uuid.uuid4().hex, uuid.uuid4().hex, "4111 1111 1111 1111"
        junk = uuid.uuid4().bytes
        await publisher.publish(
            [
                create(key),
                create(uuid.uuid4().hex, description=f"card {pan}"),
                Message(topics.COMMANDS, b"j", junk),
                Message(
                    topics.COMMANDS,
                    b"t",
                    b'{"type":"cancel","merchant_id":"acme","idempotency_key":"%s"}' % lost.encode(),
                ),
            ]
        )
        payment_id = identity.payment_id("acme", key)
        await until(functools.partial(all_pending, seen, [payment_id]), "the good one")
        await publisher.publish([create(key, amount="99.00"), cancel(key)])
        await until(lambda: any(letter.reason == "idempotency-conflict" for letter in seen.letters), "the conflict")
        await until(lambda: seen.records.get(topics.cancel_topic(LANE)), "the cancel")
        await until(lambda: len(seen.letters) >= 4, "four letters")
        reasons = {letter.reason: letter for letter in seen.letters}
        assert reasons.keys() == {"card-number", "undecodable", "unknown-payment", "idempotency-conflict"}
        assert reasons["card-number"].original == b""
        assert pan.encode() not in b"".join(record.value for records in seen.records.values() for record in records)
        assert reasons["undecodable"].original == junk
        (record,) = seen.records[topics.cancel_topic(LANE)]
        assert codec.decode(record.value, PaymentTask).payment_id == payment_id


def cancel(key: str) -> Message:
    """A cancel in Avro."""
    command = PaymentCommand(
        type=CommandType.CANCEL, payment_id=identity.payment_id("acme", key), accepted_at_ms=1_800_000_000_000
    )
    return Message(topics.COMMANDS, key.encode(), codec.encode(command))
