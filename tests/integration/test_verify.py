"""The proofs by the command line, on a real broker and PostgreSQL: what they find, and that a rebuild ends whole."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from ops.kafka.message import Message
from schemas import codec, topics
from schemas.records import EventType, PaymentResult, State
from tests.integration import sink_role
from tests.integration.shell import LANE, Answer, Shell, shell_on
from tests.integration.sink_role import NOW_MS, Rows, a_database, event, ids, letter, to_events, to_letters

if TYPE_CHECKING:
    from ops.local.stack import Stack

pytestmark = pytest.mark.kafka


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shell(stack: Stack) -> Shell:
    return await shell_on(stack)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rows(stack: Stack) -> AsyncIterator[Rows]:
    async with a_database(stack.database_url) as found:
        yield found


def result(payment_id: str, state: State = State.COMPLETED, version: int = 3) -> Message:
    value = PaymentResult(
        status=state, version=version, payment_id=payment_id, merchant_id="acme", idempotency_key="k",
        amount_minor=1250, currency="USD", lane=LANE, attempts=1, accepted_at_ms=NOW_MS, final_at_ms=NOW_MS,
    )  # fmt: skip
    return Message(topics.RESULTS, payment_id.encode(), codec.encode(value))


async def test_parity_finds_what_differs_and_a_rebuild_mends_it(shell: Shell, rows: Rows) -> None:
    done, open_ = ids(30), ids(10)
    events = [event(each, version) for each in done for version in (1, 2, 3)]
    events += [event(each, 1, metadata={"b": "1", "a": "é"}, description="x") for each in open_]
    gone = ids(1)  # its cancel's event knows neither metadata nor description
    events += [
        event(gone[0], 1, description="y"),
        event(gone[0], 2, state=State.CANCELLED, type=EventType.STATE_CHANGED, attempt=0, metadata={}),
    ]
    await shell.publish(
        *to_events(*events),
        *to_events(events[3]),
        *map(result, done),
        result(gone[0], State.CANCELLED, 2),
        *to_letters(letter(7)),
    )
    wrong = Message(topics.EVENTS, b"junk", b"no event", partition=0)
    await shell.publish(wrong)

    async def kifiya(*arguments: str) -> Answer:
        return await shell.kifiya(*arguments, DATABASE_URL=rows.url)

    async with sink_role.sink(shell.kafka, rows):
        await rows.reach(done, 3)
        await rows.reach(open_, 1)
        await rows.reach(gone, 2)
        whole = (await kifiya("verify", "parity", "-o", "json")).json
        assert whole == {
            "payments": 41, "events": 102, "refused": 1, "differences": {}, "older": 0, "holds": True,
        }  # fmt: skip

        await rows.fetch("UPDATE payments SET amount_minor = 1, state = 'FAILED' WHERE payment_id = $1::uuid", done[0])
        await rows.fetch("DELETE FROM payments WHERE payment_id = $1::uuid", done[1])
        await rows.fetch("DELETE FROM payment_events WHERE payment_id = $1::uuid AND version = 2", done[2])
        broken = await kifiya("verify", "parity")
        assert broken.status == 1
        assert f"{done[0]} differs from its newest event in state, amount_minor" in broken.out
        assert f"{done[1]} has no row in PostgreSQL" in broken.out
        assert f"{done[2]} lacks 1 of its events in PostgreSQL" in broken.out
        assert broken.out.splitlines()[-1].startswith("41 payments, 102 events: parity 92.6")

        refused = await kifiya("rebuild")
        assert (refused.status, len(refused.err.splitlines())) == (2, 1)
        mended = await kifiya("rebuild", "--yes")
        assert mended.status == 0, mended.err
        assert "parity 100.0000%" in mended.out.splitlines()[-1]
        assert len(await rows.letters('topic = $1 AND partition = 3 AND "offset" = 7', topics.COMMANDS)) == 1

        late = ids(1)  # and the sink goes on in the new rows
        await shell.publish(*to_events(event(late[0], 1)))
        await rows.reach(late, 1)

        stranger = uuid.uuid4()
        copy = "INSERT INTO payments SELECT $1::uuid, merchant_id, 'alone', fingerprint, state, version, amount_minor, "
        copy += "currency, payment_method, customer_id, description, metadata, lane, expires_at, attempt, reason, "
        copy += "provider_charge_id, accepted_at, updated_at FROM payments LIMIT 1"
        await rows.fetch(copy, stranger)
        kept = await kifiya("rebuild", "--yes")
        assert (kept.status, kept.err.splitlines()[-1]) == (
            1,
            "kifiya: PostgreSQL holds 1 payments that the topics do not hold any more: nothing was changed",
        )
        assert len(await rows.payments([str(stranger)])) == 1
        rebuilt = await kifiya("rebuild", "--yes", "--discard-older", "-o", "json")
        assert rebuilt.json["holds"]


async def test_parity_without_a_sink_says_how_far_it_is_behind(shell: Shell, stack: Stack) -> None:
    async with a_database(stack.database_url) as empty:
        await shell.publish(*to_events(event(str(uuid.uuid4()))))
        behind = await shell.kifiya("verify", "parity", "--within", "1", DATABASE_URL=empty.url)
    assert (behind.status, len(behind.err.splitlines())) == (1, 1)
    assert "events behind" in behind.err


async def test_calls_are_replayed_against_the_limit(shell: Shell) -> None:
    base = NOW_MS * 1000
    calls = [
        event(each, version, lane=LANE, sent_at_us=base + n // 2 * 1_020_000 if version == 3 else None)
        for n, each in enumerate(ids(20))
        for version in (1, 2, 3)
    ]
    await shell.publish(*to_events(*calls, *calls[:6]))
    fine = (await shell.kifiya("verify", "limiter", "--lane", LANE, "-o", "json")).json
    assert (fine["calls"], fine["most"], fine["over"], fine["tightest_ms"]) == (20, 2, 0, 1020.0)
    one = str(uuid.uuid4())
    more = [event(one, 2, lane=LANE, type=EventType.CALL_INTENDED), event(one, 3, lane=LANE, sent_at_us=base + 500)]
    await shell.publish(*to_events(*more))
    over = await shell.kifiya("verify", "limiter")
    assert over.status == 1
    assert "at most 3 in any 1000 ms (limit 2)" in over.out
    unknown = await shell.kifiya("verify", "limiter", "--lane", "nowhere")
    assert (unknown.status, len(unknown.err.splitlines())) == (1, 1)
