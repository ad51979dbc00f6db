"""Dead letters by the command line, on a real broker: read once each, refused with a reason, replayed to their home."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from ops.cli.replay import _user
from ops.kafka.message import Message
from schemas import codec, identity, topics
from schemas.records import PaymentTask
from streams import dead_letter
from tests.integration.shell import LANE, Shell, home, letter_of, review_of, shell_on, tables_on, task_of

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
    assert (headers["replay-of"], headers["replayed-by"]) == (origin.encode(), _user().encode())
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
