"""Pages on a real PostgreSQL: each by an index and within its bound, none with a payment twice or left out."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from ingress import listing
from ingress.filters import Filters
from ingress.listing import Lists
from ingress.presence import Away
from ops.local.stack import Stack
from schemas import codec, topics
from sinks import rows as to_rows
from sinks.postgres import Database
from sinks.rows import Record
from tests.integration.filled import SINGLE, fill
from tests.integration.sink_role import Rows, a_database, event, ids

COUNT = 6000
INDEXES = {
    "customer": "payments_by_customer", "status": "payments_by_state", "lane": "payments_by_lane",
    "metadata": "payment_terms_pkey",
}  # fmt: skip
"""The index of each filter; where none of them is asked for, it is payments_by_time."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rows(stack: Stack) -> AsyncIterator[Rows]:
    """Never analyzed: an index must not depend on statistics."""
    async with a_database(stack.database_url) as found:
        db = await asyncpg.connect(found.url)
        await fill(db, 1, COUNT)
        await db.close()
        yield found


@pytest.fixture
async def lists(rows: Rows) -> AsyncIterator[Lists]:
    found = Lists(rows.url)
    yield found
    await found.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", []):
        if each["Parent Relationship"] != "InitPlan":  # what row-level security asks once: whose rows are wanted
            yield from nodes(each)


async def explain(db: asyncpg.Connection, query: str, arguments: Any) -> dict[str, Any]:
    async with db.transaction():
        for name, value in listing.PLANNER.items():
            await db.execute(f"SET LOCAL {name} = {value}")
        await db.execute("SET LOCAL kifiya.merchants = 'shop'")
        await db.execute("SET LOCAL ROLE kifiya_ingress")
        return dict(json.loads(await db.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments))[0]["Plan"])


def combinations() -> list[tuple[str, ...]]:
    return [chosen for size in range(len(SINGLE) + 1) for chosen in itertools.combinations(SINGLE, size)]


def filters(chosen: tuple[str, ...], **more: Any) -> Filters:
    return Filters(**{name: value for each in chosen for name, value in SINGLE[each].items()}, **more)


async def test_every_combination_of_filters_reads_an_index_in_order_and_is_bounded(rows: Rows) -> None:
    """With and without statistics: nothing is sorted, nothing scanned, and what an index gives is what is looked at."""
    db = await asyncpg.connect(rows.url)
    try:
        for chosen in combinations():
            asked = listing.query(filters(chosen, limit=20), "shop")
            wanted = {INDEXES.get(each) for each in ("metadata", "customer", "status", "lane") if each in chosen}
            queries = [(asked.page, asked.arguments)]
            if asked.last_examined:
                queries.append((asked.last_examined, asked.arguments[: asked.shared]))
            for query, arguments in queries:
                found = list(nodes(await explain(db, query, arguments)))
                kinds = {node["Node Type"] for node in found}
                assert kinds <= {"Limit", "Subquery Scan", "Nested Loop", "Index Scan", "Index Only Scan"}, (
                    chosen,
                    kinds,
                )
                driving = next(node for node in reversed(found) if "Index" in node["Node Type"]
                               and node["Index Name"] != "payments_pkey")  # fmt: skip
                assert driving["Index Name"] in (wanted or {"payments_by_time"}), chosen
                assert "ROW(" in driving["Index Cond"]
                assert "Filter" not in driving, (chosen, driving)
                read = max(node["Actual Rows"] * node["Actual Loops"] for node in found if "Index" in node["Node Type"])
                assert read <= (listing.EXAMINED if asked.last_examined else 21), chosen
    finally:
        await db.close()


def matches(row: Any, chosen: tuple[str, ...]) -> bool:
    found = {
        "status": row["state"] == "FAILED", "lane": row["lane"] == "rare", "customer": row["customer_id"] == "c7",
        "metadata": '"channel": "web"' in row["metadata"], "time": True,
    }  # fmt: skip
    return all(found[each] for each in chosen)


@pytest.mark.parametrize("chosen", combinations(), ids="+".join)
async def test_pages_give_every_payment_once_in_order(
    rows: Rows, lists: Lists, chosen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a page's bound is met in the middle of what is looked for: here after 500 rows."""
    monkeypatch.setattr(listing, "EXAMINED", 500)
    stored = await rows.fetch("SELECT * FROM payments WHERE merchant_id = 'shop' ORDER BY accepted_at, payment_id")
    wanted = [row["payment_id"] for row in reversed(stored) if matches(row, chosen)]
    found, seen, pages = filters(chosen, limit=100), list[Any](), 0
    while True:
        page = await lists.page(found, "shop")
        assert len(page.rows) <= 100
        seen += [row["payment_id"] for row in page.rows]
        pages += 1
        if page.last is None:
            break
        found = replace(found, after=page.last)
    assert seen == wanted
    assert pages <= len(wanted) // 100 + len(stored) // 500 + 2


async def test_pages_are_stable_while_payments_come_and_change(rows: Rows, lists: Lists) -> None:
    db = await asyncpg.connect(rows.url)
    before = {
        row["payment_id"] for row in await rows.fetch("SELECT payment_id FROM payments WHERE merchant_id = 'shop'")
    }
    found, seen = Filters(limit=100), list[Any]()
    try:
        for number in itertools.count(COUNT + 1, 20):
            page = await lists.page(found, "shop")
            seen += [row["payment_id"] for row in page.rows]
            await fill(db, number, number + 19)
            await db.execute("UPDATE payments SET state = 'UNKNOWN' WHERE payment_id = ANY($1)", seen[-3:])
            if page.last is None:
                break
            found = replace(found, after=page.last)
    finally:
        await db.execute("DELETE FROM payments WHERE substr(idempotency_key, 2)::int > $1", COUNT)
        await db.close()
    assert len(seen) == len(set(seen))
    assert set(seen) >= before


async def test_metadata_is_found_whichever_event_brings_it_and_forgotten_with_the_payments(stack: Stack) -> None:
    words = Filters(metadata=(("order", "7"),))
    async with a_database(stack.database_url) as found:
        database, lists = Database(found.url), Lists(found.url)
        try:
            (one,) = ids(1)
            for version, metadata in ((2, {}), (1, {"order": "7"})):
                value = codec.encode(event(one, version, metadata=metadata))
                await database.write(to_rows.batch([Record(topics.EVENTS, 0, version, 0, value)]))
                page = await lists.page(words, "acme")
                assert [str(row["payment_id"]) for row in page.rows] == ([one] if metadata else [])
            trail = await lists.events(one, "acme", after=0, limit=10)
            assert [(row["version"], row["topic"], row["offset"]) for row in trail] == [
                (1, topics.EVENTS, 1), (2, topics.EVENTS, 2),
            ]  # fmt: skip
            assert await lists.events(one, "acme", after=1, limit=10) == trail[1:]
            assert await lists.events(one, "shop", after=0, limit=10) == []
            await found.fetch("TRUNCATE payments")
            assert await found.fetch("SELECT * FROM payment_terms") == []
        finally:
            database.close()
            await lists.close()


async def test_a_list_waits_for_nobody(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL away, one query that takes for ever, all connections taken: each is told soon, and heals."""
    nowhere = Lists("postgresql://kifiya@127.0.0.1:9/kifiya")
    for _ in range(2):
        with pytest.raises(Away):
            await nowhere.page(Filters(), "shop")
    await nowhere.close()
    lists = Lists(rows.url, timeout_s=0.5, statement_s=0.1)
    monkeypatch.setattr(listing, "_EVENTS", "SELECT pg_sleep(60), $1::uuid, $2::int, $3::int, $4::text")
    try:
        slow = [lists.events(str(uuid.uuid4()), "shop", after=0, limit=1) for _ in range(3 * listing.CONNECTIONS)]
        answers = await asyncio.wait_for(asyncio.gather(*slow, return_exceptions=True), 3)
        assert {type(each) for each in answers} == {Away}
        async with asyncio.timeout(10):  # on a busy machine the last of them was late enough to be taken for an absence
            while True:
                with suppress(Away):
                    assert (await lists.page(Filters(), "shop")).rows
                    break
                await asyncio.sleep(0.05)
    finally:
        await lists.close()
