"""PostgreSQL, as the sink writes it: one transaction a batch, rows and offset together, within bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from ops.failpoints import Failpoint
from sinks.rows import Batch

_SQL: Final = Path(__file__).parent / "sql"
_PAYMENTS: Final = (_SQL / "upsert_payments.sql").read_text()
_EVENTS: Final = (_SQL / "insert_events.sql").read_text()
_LETTERS: Final = (_SQL / "insert_dead_letters.sql").read_text()
_OFFSET: Final = (_SQL / "advance_offset.sql").read_text()
_PING: Final = (_SQL / "ping.sql").read_text()

AFTER_BEGIN: Final = Failpoint("sink.after-begin")
AFTER_PAYMENTS: Final = Failpoint("sink.after-payments")
AFTER_EVENTS: Final = Failpoint("sink.after-events")
AFTER_LETTERS: Final = Failpoint("sink.after-letters")
AFTER_OFFSET: Final = Failpoint("sink.after-offset")
AFTER_COMMIT: Final = Failpoint("sink.after-commit")

CONNECTIONS: Final = 4
CONNECT_S: Final = 3.0
STATEMENT_S: Final = 10.0
TRANSACTION_S: Final = 20.0
"""How long one write may take, the connecting included."""
IDLE_S: Final = 15.0
"""When PostgreSQL ends our open transaction: a worker that is stopped in the middle must not hold its locks."""

_REFUSALS: Final = frozenset({"22", "23", "44", "54", "P0"})
"""SQLSTATE classes that say a row is wrong: data, constraint, check option, limit of an index, a trigger's word."""


class Away(Exception):
    """PostgreSQL cannot be asked now; the batch may or may not be written, and writing it again is harmless."""


class Refused(Exception):
    """PostgreSQL will refuse this batch for ever: some row of it is wrong."""


def translate(error: BaseException) -> Away | Refused | None:
    """What an error of asyncpg's means; None for what is not PostgreSQL's, a cancellation above all. Pure."""
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in _REFUSALS:
        return Refused(type(error).__name__)
    if isinstance(
        error, OSError | TimeoutError | asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError
    ):
        return Away(type(error).__name__)
    return None


class Database:
    """The sink's connections. They are made when needed, and dropped without a word when anything goes wrong."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[Any] = []
        self._slots = asyncio.Semaphore(CONNECTIONS)

    def close(self) -> None:
        """Drop the idle connections; those in use go with their tasks."""
        while self._idle:
            self._idle.pop().terminate()

    async def write(self, batch: Batch) -> dict[str, int]:
        """Write a batch and its offset, or nothing; rows changed by table. Raises Away, Refused."""
        try:
            changed = await self._write(batch)
        except Refused as refused:
            # Two writers' inserts of one row may meet in another index than the one ON CONFLICT looks at; once the
            # other's is there, it is found.
            if not isinstance(refused.__cause__, asyncpg.UniqueViolationError):
                raise
            changed = await self._write(batch)
        await AFTER_COMMIT.reach()
        return changed

    async def _write(self, batch: Batch) -> dict[str, int]:
        async with self._connection() as connection:
            await connection.execute("BEGIN")
            await AFTER_BEGIN.reach()
            changed = await store(connection, batch)
            await AFTER_OFFSET.reach()
            await connection.execute("COMMIT")
        return changed

    async def ping(self) -> None:
        """Whether the tables are there. Raises Away."""
        async with self._connection() as connection:
            await connection.execute(_PING)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """A connection for one transaction. Not asyncpg's pool: on a server that hangs, its clean-up hangs too."""
        async with self._slots:
            connection: Any = None
            try:
                async with asyncio.timeout(TRANSACTION_S):
                    connection = self._idle.pop() if self._idle else await self._connect()
                    try:
                        yield connection
                    except asyncpg.PostgresError as error:
                        if isinstance(translate(error), Refused):
                            await connection.execute("ROLLBACK")
                            self._idle.append(connection)
                            connection = None
                        raise
            except BaseException as error:
                if connection is not None:
                    connection.terminate()
                found = translate(error)
                if isinstance(found, Away):
                    self.close()  # the others lead to the same server
                if found is None:
                    raise
                raise found from error
            self._idle.append(connection)

    async def _connect(self) -> Any:
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_S,
            command_timeout=STATEMENT_S,
            server_settings={
                "application_name": "kifiya-sink",
                "role": "kifiya_sink",
                "statement_timeout": str(int(STATEMENT_S * 1000)),
                "idle_in_transaction_session_timeout": str(int(IDLE_S * 1000)),
            },
        )


async def store(connection: Any, batch: Batch) -> dict[str, int]:
    """Write a batch and its offset in the connection's transaction; rows changed by table. Raises asyncpg's errors."""
    changed: dict[str, int] = {}
    for table, query, rows, written in (
        ("payments", _PAYMENTS, batch.payments, AFTER_PAYMENTS),
        ("payment_events", _EVENTS, batch.events, AFTER_EVENTS),
        ("dead_letters", _LETTERS, batch.letters, AFTER_LETTERS),
    ):
        changed[table] = await _rows(connection, query, rows)
        await written.reach()
    await connection.execute(_OFFSET, batch.topic, batch.partition, batch.next_offset)
    return changed


async def _rows(connection: Any, query: str, rows: Sequence[tuple[Any, ...]]) -> int:
    """Write these rows; how many were new or changed something."""
    if not rows:
        return 0
    said: str = await connection.execute(query, *map(list, zip(*rows, strict=True)))
    return int(said.rpartition(" ")[2])
