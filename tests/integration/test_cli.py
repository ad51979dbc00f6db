"""The command line against a real broker: what it sends decodes, what it reads is true, what it trims was done."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition

from ops.kafka.admin import create_topics
from ops.kafka.message import Message
from schemas import codec, identity, topics
from schemas.records import PaymentCommand
from tests.integration.shell import TIERS, Shell, home, letter_of, shell_on, tables_on, task_of

if TYPE_CHECKING:
    from ops.local.stack import Stack

pytestmark = pytest.mark.kafka


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shell(stack: Stack) -> Shell:
    return await shell_on(stack)


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[str]:
    async with tables_on(stack) as url:
        yield url


async def test_topics_are_created_once_and_listed_with_what_they_hold(shell: Shell) -> None:
    lane = f"t{uuid.uuid4().hex[:8]}"
    lanes = json.dumps({lane: {}})
    assert "10 topics created" in (await shell.kifiya("topics", "create", LANES=lanes)).out
    again = await shell.kifiya("topics", "create", LANES=lanes)
    assert (again.status, again.out) == (0, "all topics are there\n")
    other = await shell.kifiya("topics", "create", LANES=lanes, LANE_PARTITIONS="5")
    assert other.status == 1
    assert "partitions, 5 are declared: set COMMAND_PARTITIONS and LANE_PARTITIONS" in other.err
    await shell.publish(*(Message(topics.lane_topic(lane), None, b"x", partition=2) for _ in range(7)))
    rows = {row["name"]: row for row in (await shell.kifiya("topics", "list", "-o", "json", LANES=lanes)).json}
    assert rows[topics.lane_topic(lane)]["records"] == 7
    assert rows[topics.lane_topic(lane)]["ends"]["2"] == 7
    assert rows[topics.due_topic(lane)] | {"ends": 0} == {
        "name": topics.due_topic(lane),
        "partitions": 8,
        "records": 0,
        "ends": 0,
        "purpose": f"due retries of lane {lane}",
    }
    text = (await shell.kifiya("topics", "list", LANES=lanes)).out
    assert topics.changelog_topic(topics.dispatch_app(lane), topics.LEDGER_TABLE) in text


async def test_a_topic_is_read_whatever_is_in_it(shell: Shell) -> None:
    lane = f"t{uuid.uuid4().hex[:8]}"
    await create_topics(shell.kafka, topics.declare([lane], tiers=["1s"]))
    topic, task = topics.lane_topic(lane), task_of()
    values = [codec.encode(task), b'{"type": "cancel"}', b"\x00junk\x1b[31m", b"", codec.encode(letter_of(b"1"))]
    await shell.publish(*(Message(topic, b"key\x1b[0m", value, (("h", b"\xff"),), 0) for value in values))
    await shell.publish(Message(topic, b"k", None, partition=1))
    found = (await shell.kifiya("topics", "tail", topic, "--from-beginning", "-o", "json")).lines
    (tombstone,) = (item for item in found if item["partition"] == 1)
    found.remove(tombstone)
    assert [item["value"].get("record") for item in found] == [
        "PaymentTask",
        None,
        None,
        None,
        "DeadLetter",
    ]
    assert found[0]["value"]["kind"] == "create"
    assert found[0]["headers"] == {"h": "\\xff"}
    assert found[1]["value"] == {"json": {"type": "cancel"}}
    assert found[2]["value"]["bytes"] == len(values[2])
    assert tombstone["value"] == {"tombstone": True}
    text = await shell.kifiya("topics", "tail", topic, "--max", "3")
    assert len(text.out.splitlines()) == 3
    assert "\x1b" not in text.out
    assert (await shell.kifiya("topics", "tail", "payments.nosuch")).err == (
        "kifiya: the broker has no topic 'payments.nosuch': see `kifiya topics list`\n"
    )


async def test_a_tail_follows_what_arrives(shell: Shell) -> None:
    lane = f"t{uuid.uuid4().hex[:8]}"
    await create_topics(shell.kafka, topics.declare([lane], tiers=["1s"]))
    topic = topics.lane_topic(lane)
    await shell.publish(Message(topic, None, b"old", partition=0))

    async def keep_sending() -> None:
        while True:
            await shell.publish(Message(topic, None, b"new", partition=0))
            await asyncio.sleep(0.3)

    sending = asyncio.create_task(keep_sending())
    try:
        found = (await shell.kifiya("topics", "tail", topic, "--follow", "--max", "2", "-o", "json")).lines
    finally:
        sending.cancel()
        await asyncio.wait({sending})
    assert [item["value"]["hex"] for item in found] == [b"new".hex()] * 2
    assert found[0]["offset"] > 0


async def test_a_payment_that_is_sent_decodes_at_home_with_its_id(shell: Shell) -> None:
    key = uuid.uuid4().hex
    ours = ["--amount", "12.50", "--currency", "USD", "--payment-method", "pm_approve", "--metadata", "order=7"]
    sent = (await shell.kifiya("send", "--key", key, "--merchant", "acme", *ours, "-o", "json")).json
    assert sent["payment_id"] == identity.payment_id("acme", key)
    (record,) = [each for each in await shell.records(topics.COMMANDS) if each.key == sent["payment_id"].encode()]
    assert sent["record"] == f"{topics.COMMANDS}/{record.partition}/{record.offset}"
    assert [record.partition] == home(12, sent["payment_id"])
    found = codec.decode(record.value, PaymentCommand)
    assert (found.amount_minor, found.metadata, found.payment_id) == (1250, {"order": "7"}, sent["payment_id"])

    for more in (["--json"], []):
        await shell.kifiya("send", "--key", key, "--merchant", "acme", *ours, *more)
    foreign = [each for each in await shell.records(topics.COMMANDS) if each.key == key.encode()]
    assert [json.loads(each.value)["idempotency_key"] for each in foreign] == [key]

    many = await shell.kifiya("send", "--key", key, "--merchant", "acme", *ours, "--count", "3")
    ids = [line.split()[0] for line in many.out.splitlines()]
    assert ids == [identity.payment_id("acme", f"{key}-{number}") for number in (1, 2, 3)]


async def test_a_cancel_names_the_payment_that_its_key_made(shell: Shell) -> None:
    key = uuid.uuid4().hex
    sent = (await shell.kifiya("send", "--cancel", "--key", key, "--merchant", "acme", "-o", "json")).json
    (record,) = [each for each in await shell.records(topics.COMMANDS) if each.key == sent["payment_id"].encode()]
    assert sent["payment_id"] == identity.payment_id("acme", key)
    assert codec.decode(record.value, PaymentCommand).type == "cancel"


async def test_the_doctor_finds_a_healthy_stack_healthy(shell: Shell, database: str, stack: Stack) -> None:
    answer = await shell.kifiya("doctor", "-o", "json", DATABASE_URL=database)
    levels = {item["name"]: item["level"] for item in json.loads(answer.out)}
    healthy = ("kafka", "topics", "redis", "redis eviction", "clock", "postgres", "tables")
    assert {name: levels[name] for name in healthy} == dict.fromkeys(healthy, "ok"), answer.out
    answer = await shell.kifiya("doctor", LANE_PARTITIONS="5", DATABASE_URL=stack.database_url)
    assert answer.status == 1
    assert "has 8 partitions, not 5" in answer.out


async def test_work_that_is_done_is_trimmed_and_nothing_else(shell: Shell) -> None:
    lane = f"t{uuid.uuid4().hex[:8]}"
    await create_topics(shell.kafka, topics.declare([lane], tiers=TIERS.split(",")))
    topic = topics.lane_topic(lane)
    part = TopicPartition(topic, 0)
    await shell.publish(*(Message(topic, None, b"%d" % number, partition=0) for number in range(5)))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=shell.kafka.bootstrap, group_id=topics.dispatch_app(lane), enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([part])
    await consumer.commit({part: OffsetAndMetadata(3, "")})
    await consumer.stop()
    lanes = json.dumps({lane: {}})
    answer = await shell.kifiya("topics", "trim", "--dry-run", LANES=lanes)
    assert f"{topic}: 3 records" in answer.out
    assert len(await shell.records(topic)) == 5
    answer = await shell.kifiya("topics", "trim", LANES=lanes)
    if shell.kafka.dialect == "tansu":
        assert (answer.status, len(answer.err.splitlines())) == (1, 1)
        return
    assert answer.status == 0, answer.err
    assert [record.value for record in await shell.records(topic)] == [b"3", b"4"]
