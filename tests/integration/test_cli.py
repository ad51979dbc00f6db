"""The command line against a real broker: what it sends decodes, what it reads is true, what it replays goes home."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, ConsumerRecord, OffsetAndMetadata, TopicPartition

from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Publisher, partition_for
from ops.kafka.message import Message
from ops.kafka.reading import present
from schemas import codec, identity, topics
from schemas.records import DeadLetter, PaymentCommand, PaymentTask, TaskKind
from streams import dead_letter

if TYPE_CHECKING:
    from ops.local.stack import Stack

pytestmark = pytest.mark.kafka

LANE = "clitest"
LANES = json.dumps({LANE: {"provider": "simulator"}})
TIERS = "1s,2s"


@dataclass
class Answer:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        assert self.status == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Shell:
    """A person's shell with the stack's addresses in its environment."""

    kafka: KafkaSettings
    environment: dict[str, str]

    async def kifiya(self, *arguments: str, **environment: str) -> Answer:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ops.cli.main",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | self.environment | environment,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return Answer(process.returncode or 0, out.decode(), err.decode())

    async def records(self, topic: str) -> list[ConsumerRecord]:
        async with aclosing(present(self.kafka, topic)) as found:
            return [record async for record in found]

    async def publish(self, *messages: Message) -> None:
        async with Publisher(self.kafka) as publisher:
            await publisher.publish(list(messages))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shell(stack: Stack) -> Shell:
    kafka = KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect)
    found = Shell(
        kafka,
        {
            "KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
            "KAFKA_DIALECT": stack.kafka_dialect,
            "REDIS_URL": stack.redis_url,
            "DATABASE_URL": "",
            "INGRESS_URL": "",
            "LANES": LANES,
            "RETRY_TIERS": TIERS,
            "KIFIYA_STATE": "/nonexistent/state.json",
        },
    )
    await create_topics(kafka, topics.declare([LANE], tiers=TIERS.split(",")))
    return found


def task_of(**changes: Any) -> PaymentTask:
    return PaymentTask(
        **{
            "kind": TaskKind.CREATE,
            "payment_id": str(uuid.uuid4()),
            "merchant_id": "acme",
            "idempotency_key": "k",
            "fingerprint": "ab" * 32,
            "amount_minor": 1250,
            "currency": "USD",
            "payment_method": "pm_approve",
            "lane": LANE,
            "accepted_at_ms": time.time_ns() // 1_000_000,
            **changes,
        }
    )


def letter_of(original: bytes, **changes: Any) -> DeadLetter:
    """A letter as dispatch or intake writes it, of an origin of its own."""
    return dead_letter.letter(
        **{
            "reason": "rejected",
            "detail": "card [number] \x1b[31m",
            "stage": "dispatch",
            "topic": topics.lane_topic(LANE),
            "partition": 0,
            "offset": uuid.uuid4().int >> 66,
            "original": original,
            "at_ms": time.time_ns() // 1_000_000,
            **changes,
        }
    )


def review_of(task: PaymentTask, **changes: Any) -> DeadLetter:
    return letter_of(
        codec.encode(task),
        **{
            "payment_id": task.payment_id,
            "merchant_id": task.merchant_id,
            "lane": LANE,
            "attempts": task.attempt,
            **changes,
        },
    )


def home(count: int, *keys: str) -> list[int]:
    return [partition_for(key.encode(), count) for key in keys]


async def test_topics_are_created_once_and_listed_with_what_they_hold(shell: Shell) -> None:
    lane = f"t{uuid.uuid4().hex[:8]}"
    lanes = json.dumps({lane: {}})
    assert "4 topics created" in (await shell.kifiya("topics", "create", LANES=lanes)).out
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


async def test_letters_are_listed_once_and_shown_whole(shell: Shell) -> None:
    reason, task = f"test-{uuid.uuid4().hex}", task_of(attempt=2)
    old = review_of(task, reason=reason, at_ms=1000)
    new = review_of(task_of(payment_id=task.payment_id, attempt=5), reason=reason, at_ms=2000)
    raw = letter_of(b"\x01junk", stage="intake", topic=topics.COMMANDS, reason=reason, at_ms=3000)
    await shell.publish(*(dead_letter.message(each) for each in (old, new, raw, raw)))
    await shell.publish(Message(topics.DEAD_LETTER, None, b"no letter", partition=0))

    found = (await shell.kifiya("dead-letters", "list", "--reason", reason, "-o", "json")).json
    assert [item["origin"] for item in found] == [dead_letter.origin(each) for each in (new, raw)]
    assert found[0]["attempts"] == 5
    every = (await shell.kifiya("dead-letters", "list", "--reason", reason, "--all", "--limit", "2", "-o", "json")).json
    assert [item["origin"] for item in every] == [dead_letter.origin(each) for each in (new, raw)]
    intake = (await shell.kifiya("dead-letters", "list", "--reason", reason, "--stage", "intake")).out
    assert dead_letter.origin(raw) in intake
    assert dead_letter.origin(new) not in intake

    one = (await shell.kifiya("dead-letters", "show", dead_letter.origin(new), "-o", "json")).json
    assert one["original"]["record"] == "PaymentTask"
    assert one["headers"]["__dlq.errors.reason"] == reason
    other = (await shell.kifiya("dead-letters", "show", dead_letter.origin(raw))).out
    assert b"\x01junk".hex() in other
    assert "\x1b" not in other
    missing = await shell.kifiya("dead-letters", "show", "payments.commands/0/99999999")
    assert (missing.status, len(missing.err.splitlines())) == (1, 1)


async def test_a_review_goes_to_its_lane_as_the_next_attempt_under_its_own_id(shell: Shell) -> None:
    task = task_of(attempt=3)
    letter = review_of(task)
    await shell.publish(dead_letter.message(letter, key=task.payment_id.encode()))
    origin = dead_letter.origin(letter)
    dry = (await shell.kifiya("dead-letters", "replay", origin, "--dry-run", "-o", "json")).json
    assert [item["to"] for item in dry["replayed"]] == [topics.due_topic(LANE)]
    done = (await shell.kifiya("dead-letters", "replay", "--payment-id", task.payment_id, "-o", "json")).json
    found = [each for each in await shell.records(topics.due_topic(LANE)) if each.key == task.payment_id.encode()]
    (record,) = found
    back = codec.decode(record.value, PaymentTask)
    assert (back.payment_id, back.attempt, back.replay_id) == (task.payment_id, 4, done["replay_id"])
    assert [record.partition] == home(8, task.payment_id)
    headers = dict(record.headers)
    assert (headers["replay-of"], headers["replayed-by"]) == (origin.encode(), getpass.getuser().encode())
    again = await shell.kifiya("dead-letters", "replay", origin)
    assert again.status == 0
    assert "1 replayed" in again.out
    assert done["replay_id"] not in again.out


async def test_what_cannot_be_replayed_is_refused_and_an_older_letter_names_the_newer(shell: Shell) -> None:
    task = task_of(attempt=1)
    old, new = review_of(task, at_ms=1000), review_of(task_of(payment_id=task.payment_id, attempt=2), at_ms=2000)
    cut = letter_of(b"{" * 70_000, stage="intake", topic=topics.COMMANDS)
    junk = letter_of(b"\x01junk", payment_id=None)
    gone = review_of(task_of(lane="nosuchlane"))
    letters = (old, cut, junk, gone)
    await shell.publish(*(dead_letter.message(each) for each in (*letters, new)))
    answer = await shell.kifiya("dead-letters", "replay", *map(dead_letter.origin, letters))
    assert answer.status == 1
    assert answer.out == "0 replayed, 0 skipped as final, 4 refused\n"
    whys = dict(line.removeprefix("kifiya: ").split(" refused: ") for line in answer.err.splitlines())
    assert dead_letter.origin(new) in whys[dead_letter.origin(old)]
    assert "only 4096 of its 70000 bytes were kept" in whys[dead_letter.origin(cut)]
    assert "no payment task" in whys[dead_letter.origin(junk)]
    assert "payments.lane.nosuchlane.due" in whys[dead_letter.origin(gone)]


async def test_a_command_goes_to_intake_again(shell: Shell) -> None:
    key = uuid.uuid4().hex
    original = json.dumps(
        {
            "type": "create",
            "idempotency_key": key,
            "merchant_id": "acme",
            "amount": "1",
            "currency": "USD",
            "payment_method": "pm",
        }
    ).encode()
    letter = letter_of(original, stage="intake", topic=topics.COMMANDS, reason="unknown-lane")
    await shell.publish(dead_letter.message(letter))
    answer = await shell.kifiya("dead-letters", "replay", dead_letter.origin(letter))
    assert "intake decides anew" in answer.out
    payment_id = identity.payment_id("acme", key).encode()
    found = [each for each in await shell.records(topics.COMMANDS) if each.key == payment_id]
    assert [each.value for each in found] == [original]


async def test_many_at_once_need_a_second_person_and_say_so_in_the_record(shell: Shell) -> None:
    reason = f"test-{uuid.uuid4().hex}"
    tasks = [task_of(attempt=2) for _ in range(11)]
    await shell.publish(*(dead_letter.message(review_of(task, reason=reason)) for task in tasks))
    every = ("dead-letters", "replay", "--all", "--reason", reason)
    for more in ([], ["--yes"], ["--approved-by", "grace"]):
        refused = await shell.kifiya(*every, *more)
        assert refused.status == 1
        assert "11 letters are more than 10" in refused.err
    done = (await shell.kifiya(*every, "--yes", "--approved-by", "grace", "-o", "json")).json
    assert len(done["replayed"]) == 11
    ids = {task.payment_id.encode() for task in tasks}
    found = [each for each in await shell.records(topics.due_topic(LANE)) if each.key in ids]
    assert {dict(each.headers)["approved-by"] for each in found} == {b"grace"}
    assert len(found) == 11


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[str]:
    """A database of its own with the gateway's tables."""
    name = f"cli_{uuid.uuid4().hex[:8]}"
    server = stack.database_url.rpartition("/")[0]
    admin = await asyncpg.connect(stack.database_url)
    await admin.execute(f"CREATE DATABASE {name}")
    url = f"{server}/{name}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sinks", "migrate", env=os.environ | {"DATABASE_URL": url, "KAFKA_BOOTSTRAP": "-"}
    )
    assert await process.wait() == 0
    yield url
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def test_payments_that_are_final_are_left_alone_and_counted(shell: Shell, database: str) -> None:
    reason = f"test-{uuid.uuid4().hex}"
    done, waits = task_of(), task_of()
    connection = await asyncpg.connect(database)
    for task, state in ((done, "COMPLETED"), (waits, "REVIEW")):
        await connection.execute(
            """INSERT INTO payments (payment_id, merchant_id, idempotency_key, fingerprint, state, version,
                                     amount_minor, currency, payment_method, lane, attempt, accepted_at, updated_at)
               VALUES ($1, 'acme', $2, $3, $4, 3, 1250, 'USD', 'pm', $5, 1, now(), now())""",
            uuid.UUID(task.payment_id),
            task.payment_id,
            task.fingerprint,
            state,
            LANE,
        )
    await connection.close()
    await shell.publish(*(dead_letter.message(review_of(task, reason=reason)) for task in (done, waits)))
    listed = (await shell.kifiya("dead-letters", "list", "--reason", reason, "-o", "json", DATABASE_URL=database)).json
    assert {item["payment_id"]: item["state"] for item in listed} == {
        done.payment_id: "COMPLETED",
        waits.payment_id: "REVIEW",
    }
    answer = await shell.kifiya("dead-letters", "replay", "--all", "--reason", reason, DATABASE_URL=database)
    assert "1 replayed, 1 skipped as final, 0 refused" in answer.out
    away = "postgresql://k:k@127.0.0.1:1/k"
    answer = await shell.kifiya("dead-letters", "replay", "--all", "--reason", reason, DATABASE_URL=away)
    assert "2 replayed" in answer.out
    assert "PostgreSQL does not say which are final" in answer.err


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
