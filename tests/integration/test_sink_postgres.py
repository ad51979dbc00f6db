"""The sink's writes on a real PostgreSQL: the same batch twice, two writers at once, locks left behind; migrations."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from ops.local.stack import Stack
from schemas import codec, topics
from schemas.records import State
from sinks import postgres
from sinks import rows as to_rows
from sinks.migrate import LOCK_ID
from sinks.patience import Patience
from sinks.postgres import Database, Refused
from sinks.rows import Record
from tests.integration.sink_role import NOW_MS, Rows, a_database, event, ids, letter, migrating, until


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rows(stack: Stack) -> AsyncIterator[Rows]:
    async with a_database(stack.database_url) as found:
        yield found


@pytest.fixture
async def database(rows: Rows) -> AsyncIterator[Database]:
    found = Database(rows.url)
    yield found
    found.close()


def records(*values: bytes, topic: str = topics.EVENTS, partition: int = 0, first: int = 0) -> list[Record]:
    return [Record(topic, partition, first + n, 0, value) for n, value in enumerate(values)]


async def standing(rows: Rows) -> list[Any]:
    """Every row with the transaction that wrote it: any change at all shows."""
    tables = ("payments", "payment_events", "dead_letters")
    return [await rows.fetch(f"SELECT xmin::text, * FROM {table} ORDER BY 2, 3, 4") for table in tables]


async def test_the_same_batch_twice_changes_nothing(rows: Rows, database: Database) -> None:
    one, two = ids(2)
    events = records(*(codec.encode(event(each, version)) for version in (1, 2, 3) for each in (one, two)))
    lost = records(codec.encode(letter(9)), codec.encode(letter(10)), topic=topics.DEAD_LETTER)
    changed = [await database.write(to_rows.batch(found)) for found in (events, lost)]
    assert changed == [
        {"payments": 2, "payment_events": 6, "dead_letters": 0},
        {"payments": 0, "payment_events": 0, "dead_letters": 2},
    ]
    before = await standing(rows)
    for found in (events, lost, events[:3], events[1:]):
        assert set((await database.write(to_rows.batch(found))).values()) == {0}
    assert await standing(rows) == before


async def test_a_cancel_s_event_does_not_empty_what_the_create_said(rows: Rows, database: Database) -> None:
    """In a batch of its own, before the create's event or after it."""
    words: dict[str, Any] = {"customer_id": "c", "description": "d", "expires_at_ms": NOW_MS}
    for versions in ((1, 2), (2, 1)):
        (one,) = ids(1)
        steps = {1: event(one, 1, **words), 2: event(one, 2, state=State.CANCELLED, metadata={})}
        for place, version in enumerate(versions):
            await database.write(to_rows.batch(records(codec.encode(steps[version]), partition=9, first=place)))
        row = (await rows.payments([one]))[one]
        assert (row["state"], row["version"], row["updated_at"].second) == ("CANCELLED", 2, 1)
        assert (row["customer_id"], row["description"], row["metadata"]) == ("c", "d", '{"order": "7"}')
        assert row["expires_at"] is not None


async def test_when_a_retry_may_run_stands_as_the_newest_event_says_it(rows: Rows, database: Database) -> None:
    """In whatever order the events come; once its call begins, none is scheduled."""
    for order, second in (((2, 3), 5), ((3, 2), 5), ((2, 3, 4), None), ((4, 3), None)):
        (one,) = ids(1)
        steps = {
            2: event(one, 2),
            3: event(one, 3, state=State.PENDING, retry_at_ms=NOW_MS + 5000),
            4: event(one, 4, state=State.PROCESSING),
        }
        for place, version in enumerate(order):
            await database.write(to_rows.batch(records(codec.encode(steps[version]), partition=9, first=place)))
        retry_at = (await rows.payments([one]))[one]["retry_at"]
        assert (retry_at and retry_at.second) == second


async def test_an_offset_never_goes_back(rows: Rows, database: Database) -> None:
    (one,) = ids(1)
    found = records(*(codec.encode(event(one, version)) for version in (1, 2, 3)), partition=7, first=40)
    await database.write(to_rows.batch(found))
    await database.write(to_rows.batch(found[:1]))
    assert [row["next_offset"] for row in await rows.fetch("SELECT * FROM sink_offsets WHERE partition = 7")] == [43]


async def test_two_writers_of_one_partition_agree_on_the_newest(rows: Rows) -> None:
    """A zombie and the new owner write overlapping batches in any order; locks may collide, rows may not."""
    payments, rng = ids(40), random.Random(7)
    whole = records(*(codec.encode(event(each, version)) for version in range(1, 9) for each in payments), partition=8)
    databases = [Database(rows.url) for _ in range(2)]

    async def writer(database: Database) -> None:
        patience = Patience(database)
        starts = list(range(0, len(whole), 20))
        rng.shuffle(starts)
        for start in starts:
            await patience.write(to_rows.batch(whole[start : start + 60]))

    await asyncio.gather(*(writer(each) for each in databases for _ in range(2)))
    for each in databases:
        each.close()
    assert {row["version"] for row in (await rows.payments(payments)).values()} == {8}
    assert await rows.events(payments) == dict.fromkeys(payments, 8)


async def test_a_refused_batch_leaves_nothing_and_the_connection_serves_on(rows: Rows, database: Database) -> None:
    good, bad = ids(2)
    twin = event(bad, idempotency_key=event(good).idempotency_key)
    mixed = records(codec.encode(event(good)), codec.encode(twin), partition=9)
    with pytest.raises(Refused, match="UniqueViolationError"):
        await database.write(to_rows.batch(mixed))
    assert not await rows.payments([good, bad])
    assert (await database.write(to_rows.batch(mixed[:1])))["payments"] == 1
    ours = "application_name = 'kifiya-sink' AND datname = current_database()"
    assert len(await rows.fetch(f"SELECT FROM pg_stat_activity WHERE {ours}")) == 1


async def test_postgresql_ends_the_transaction_of_a_worker_that_stands_still(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker stopped between two statements holds its locks for that long only: the new owner gets on."""
    monkeypatch.setattr(postgres, "IDLE_S", 0.5)
    (one,) = ids(1)
    batch = to_rows.batch(records(codec.encode(event(one)), partition=10))
    stopped, owner = Database(rows.url), Database(rows.url)
    held = await stopped._connect()
    await held.execute("BEGIN")
    await held.execute("INSERT INTO sink_offsets (topic, partition, next_offset) VALUES ($1, 10, 1)", topics.EVENTS)
    async with asyncio.timeout(8):  # below the bound of a statement
        assert (await owner.write(batch))["payments"] == 1
    held.terminate()
    owner.close()


async def test_the_view_knows_every_currency_and_hides_no_payment(rows: Rows, database: Database) -> None:
    amounts = {"USD": "12.50", "JPY": "1250", "KWD": "1.250", "CLF": "0.1250", "???": None}
    payments = dict(zip(amounts, ids(len(amounts)), strict=True))
    await database.write(
        to_rows.batch(
            records(*(codec.encode(event(each, currency=code)) for code, each in payments.items()), partition=11)
        )
    )
    query = "SELECT * FROM payment_status WHERE payment_id = ANY($1::uuid[])"
    found = {row["currency"]: row for row in await rows.fetch(query, list(payments.values()))}
    assert {code: row["amount"] and str(row["amount"]) for code, row in found.items()} == amounts
    for row in found.values():
        assert (row["is_final"], row["finished_at"], row["processing_s"]) == (False, None, None)
        assert row["queue_s"] == row["age_s"] > 0  # it waits still


async def test_a_failed_payment_that_was_never_called_only_waited(rows: Rows, database: Database) -> None:
    (one,) = ids(1)
    steps = [event(one), event(one, 2, type="state_changed", state="CANCELLED")]
    await database.write(to_rows.batch(records(*map(codec.encode, steps), partition=6)))
    (seen,) = await rows.fetch("SELECT * FROM payment_status WHERE payment_id = $1", uuid.UUID(one))
    assert (seen["is_final"], seen["age_s"], seen["queue_s"], seen["processing_s"]) == (True, 1, 1, None)


async def test_migrating_twice_or_by_two_at_once_is_migrating_once(stack: Stack) -> None:
    """Whoever comes second waits for the first to end, here a transaction of the test's own."""
    name = f"sink_{uuid.uuid4().hex[:8]}"
    await Rows(stack.database_url).fetch(f"CREATE DATABASE {name}")
    rows = Rows(f"{stack.database_url.rpartition('/')[0]}/{name}")
    first = await asyncpg.connect(rows.url)

    async def two_wait() -> bool:
        waiting = "locktype = 'advisory' AND NOT granted AND objid = $1"
        return len(await rows.fetch(f"SELECT FROM pg_locks WHERE {waiting}", LOCK_ID)) == 2

    async with asyncio.TaskGroup() as group, first.transaction():
        await first.execute("SELECT pg_advisory_xact_lock($1)", LOCK_ID)
        ended = [group.create_task(migrating(rows.url)) for _ in range(2)]
        await until(two_wait, "both wait for the lock")
        assert not await rows.fetch("SELECT FROM pg_tables WHERE tablename = 'payments'")
    await first.close()
    assert [each.result() for each in ended] == [0, 0]
    await rows.fetch(
        "INSERT INTO sink_offsets (topic, partition, next_offset) VALUES ('payments.events', 0, 7)",
    )
    assert await migrating(rows.url) == 0
    assert [row["next_offset"] for row in await rows.fetch("SELECT * FROM sink_offsets")] == [7]
    assert len(await rows.fetch("SELECT * FROM alembic_version")) == 1
    bare = await rows.fetch(
        "SELECT c.relname, a.attname FROM pg_class c "
        "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname <> 'alembic_version' "
        "AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)"
    )
    assert bare == []
    await Rows(stack.database_url).fetch(f"DROP DATABASE {name} WITH (FORCE)")
