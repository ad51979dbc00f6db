"""Reads of PostgreSQL that return many rows: pages of payments, and a payment's events.

Each transaction names the merchant it reads for, and row-level security shows it no other's rows.

Connections of their own, few, so that no list ever keeps the look-ups of creates waiting. In their sessions the planner
may neither sort nor scan: what is left are the indexes of 0004_reads.sql, read in the order of the pages, whatever its
statistics say. So a page costs the same with a million payments as with none.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import asyncpg

from ingress.filters import Filters, Place
from ingress.presence import Away, Presence

CONNECTIONS: Final = 4
STATEMENT_S: Final = 1.0
READ_S: Final = 1.8
"""A whole read, with the wait for a connection and the connecting."""
EXAMINED: Final = 2000
"""Rows that one page looks at, where no index serves all its filters: it may be short then, and the next goes on."""

PLANNER: Final = {
    "plan_cache_mode": "force_custom_plan",  # one that was made for an empty table is a bad one for a million rows
    **dict.fromkeys(
        ("enable_sort", "enable_incremental_sort", "enable_seqscan", "enable_bitmapscan", "enable_hashjoin",
         "enable_mergejoin", "enable_material", "enable_memoize", "jit"),
        "off",
    ),
}  # fmt: skip

_COLUMNS: Final = """p.merchant_id, p.state, p.amount_minor, p.currency, p.payment_method, p.customer_id, p.description,
       p.metadata, p.lane, p.expires_at, p.attempt, p.reason, p.provider_charge_id, p.updated_at, p.retry_at,
       p.level, p.version"""
_EVENTS: Final = """
SELECT version, type, state, attempt, call, outcome, reason, detail, provider_charge_id, replay_id, lane, at,
       sent_at_us, topic, partition, "offset", traceparent
FROM payment_events
WHERE payment_id = $1 AND version > $2 AND EXISTS (SELECT FROM payments WHERE payment_id = $1 AND merchant_id = $4)
ORDER BY version LIMIT $3"""
_MINE: Final = "SELECT set_config('kifiya.merchants', $1, true)"

Row = Any
"""A record, by column."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """Payments from the newest to the oldest; ``last`` is where the next page goes on, None after the last one."""

    rows: Sequence[Row]
    last: Place | None


@dataclass(frozen=True, slots=True)
class Query:
    """One page's SQL; ``last_examined``, of the first ``shared`` arguments, finds the last row that it may look at.

    It is empty where the index serves all filters, and the page so looks at nothing but what it gives.
    """

    page: str
    arguments: Sequence[Any]
    last_examined: str = ""
    shared: int = 0


class _Arguments(list[Any]):
    def add(self, value: str | None) -> str:
        self.append(value)
        return f"${len(self)}::text"


def query(found: Filters, merchant_id: str) -> Query:
    """The SQL of a page: one index in the order of the pages, and on what it gives the filters that it does not serve.

    What it reads by stands in row comparisons, not as ``state = $5``: so only one index gives rows in that order.
    """
    arguments = _Arguments([merchant_id, found.end.accepted_at, found.end.payment_id, found.since])
    columns = (("customer_id", found.customer_id), ("state", found.status), ("lane", found.lane))
    equal = [(column, value) for column, value in columns if value is not None]
    by, wanted = "", ""
    if found.metadata:
        name, value = found.metadata[0]
        by, wanted = "t.term", f"metadata_term({arguments.add(name)}, {arguments.add(value)}), "
    elif equal:
        column, value = equal.pop(0)
        by, wanted = f"p.{column}", f"{arguments.add(value)}, "
    driving, shared = _driving(by, wanted), len(arguments)
    rest = [f"{column} = {arguments.add(value)}" for column, value in equal]
    for name, value in found.metadata:
        key = arguments.add(name)
        rest.append(f"metadata ? {key}" if value is None else f"metadata ->> {key} = {arguments.add(value)}")
    if not rest:
        return Query(f"{driving} LIMIT {found.limit + 1}", arguments)
    page = (
        f"SELECT * FROM ({driving} LIMIT {EXAMINED}) AS examined WHERE {' AND '.join(rest)} "  # noqa: S608 - our own names
        f"ORDER BY {_newest_first(by)} LIMIT {found.limit + 1}"
    )
    return Query(page, arguments, f"{driving} OFFSET {EXAMINED - 1} LIMIT 1", shared)


def _driving(by: str, wanted: str) -> str:
    """Reads one index from the end backwards; ``by`` is its column between the merchant and the time, or empty."""
    at = "t" if by == "t.term" else "p"
    key = f"{by}{', ' if by else ''}{at}.accepted_at, {at}.payment_id"
    source = "payment_terms AS t JOIN payments AS p ON p.payment_id = t.payment_id" if at == "t" else "payments AS p"
    partial = " AND p.customer_id IS NOT NULL" if by == "p.customer_id" else ""
    return (
        f"SELECT {at}.accepted_at, {at}.payment_id, {_COLUMNS}{', t.term' if at == 't' else ''} FROM {source} "  # noqa: S608 - our own names
        f"WHERE p.merchant_id = $1 AND {at}.merchant_id = $1{partial} "
        f"AND ({key}) < ({wanted}$2::timestamptz, $3::uuid) "
        f"AND ({key}) >= ({wanted}$4::timestamptz, '00000000-0000-0000-0000-000000000000'::uuid) "
        f"ORDER BY {_newest_first(by, at)}"
    )


def _newest_first(by: str, table: str = "examined") -> str:
    column = by.rpartition(".")[2]
    return ", ".join(f"{table}.{name} DESC" for name in (column, "accepted_at", "payment_id") if name)


class Lists:
    """Pages of payments and events. Every method raises Away within about two seconds."""

    def __init__(self, url: str, *, timeout_s: float = READ_S, statement_s: float = STATEMENT_S) -> None:
        self._url = url
        self._statement_ms = int(statement_s * 1000)
        self._timeout_s = timeout_s
        self._presence = Presence("postgres-lists", self._look)
        self._idle: list[asyncpg.Connection] = []
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def close(self) -> None:
        """Close the connections."""
        await self._presence.close()
        self._drop_all()

    async def page(self, found: Filters, merchant_id: str) -> Page:
        """One page of a merchant's payments."""
        asked = query(found, merchant_id)
        return await self._read(merchant_id, lambda connection: _page(connection, asked, found.limit))

    async def events(self, payment_id: str, merchant_id: str, *, after: int, limit: int) -> list[Row]:
        """A payment's events of versions over ``after``, in order, at most so many."""
        return await self._read(merchant_id, lambda db: db.fetch(_EVENTS, payment_id, after, limit, merchant_id))

    async def _read(self, merchant_id: str, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        self._presence.check()
        had_its_turn = False
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                had_its_turn = True
                return await self._with_connection(merchant_id, work)
        except asyncpg.QueryCanceledError as error:  # of one query, whatever it was: the server is well
            raise Away("the query took too long") from error
        except TimeoutError as error:
            if had_its_turn:
                self._presence.lost(error)
                self._drop_all()
            raise Away("no answer in time") from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            self._presence.lost(error)
            self._drop_all()
            raise Away(type(error).__name__) from error

    async def _with_connection(self, merchant_id: str, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Neither asyncpg's pool nor its transactions: on a server that hangs their clean-up hangs too."""
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            await connection.execute(_MINE, merchant_id)
            answer = await work(connection)
            await connection.execute("COMMIT")
        except BaseException:
            connection.terminate()
            raise
        self._idle.append(connection)
        return answer

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._url,
            timeout=self._timeout_s,
            server_settings={
                "application_name": "kifiya-ingress-lists",
                "role": "kifiya_ingress",
                "default_transaction_read_only": "on",
                "statement_timeout": str(self._statement_ms),
                **PLANNER,
            },
        )

    def _drop_all(self) -> None:
        while self._idle:
            self._idle.pop().terminate()

    async def _look(self) -> None:
        async with self._slots:
            await self._with_connection("", lambda connection: connection.fetch("SELECT FROM payment_terms LIMIT 0"))


async def _page(connection: asyncpg.Connection, asked: Query, limit: int) -> Page:
    """Read a page; where it is short, find out whether the index was at its end or the page at its bound."""
    rows = await connection.fetch(asked.page, *asked.arguments)
    if len(rows) > limit:
        return Page(rows[:limit], _place(rows[limit - 1]))
    if not asked.last_examined:
        return Page(rows, None)
    last = await connection.fetchrow(asked.last_examined, *asked.arguments[: asked.shared])
    return Page(rows, _place(last) if last else None)


def _place(row: Row) -> Place:
    return Place(row["accepted_at"], uuid.UUID(bytes=row["payment_id"].bytes))
