"""PostgreSQL, as the sink writes it: one transaction a batch, rows and offset together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg

from sinks.rows import Batch

_SQL: Final = Path(__file__).parent / "sql"
_PAYMENTS: Final = (_SQL / "upsert_payments.sql").read_text()
_EVENTS: Final = (_SQL / "insert_events.sql").read_text()
_LETTERS: Final = (_SQL / "insert_dead_letters.sql").read_text()
_OFFSET: Final = (_SQL / "advance_offset.sql").read_text()

STATEMENT_S: Final = 20.0
CONNECT_S: Final = 5.0


class Away(Exception):
    """PostgreSQL cannot be asked now; the batch may or may not be written, and writing it again is harmless."""


class Refused(Exception):
    """PostgreSQL will refuse this batch for ever: some row of it is wrong."""


class Database:
    """The sink's connections. An async context manager; connects when it is first used."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections, whatever they do."""
        if self._pool is not None:
            self._pool.terminate()

    async def write(self, batch: Batch) -> None:
        """Write a batch and its offset, or nothing. Raises Away, Refused."""
        try:
            async with asyncio.timeout(STATEMENT_S + CONNECT_S):
                pool = await self._open()
                async with pool.acquire() as connection, connection.transaction():
                    await _rows(connection, _PAYMENTS, batch.payments)
                    await _rows(connection, _EVENTS, batch.events)
                    await _rows(connection, _LETTERS, batch.letters)
                    await connection.execute(_OFFSET, batch.topic, batch.partition, batch.next_offset)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise Refused(type(error).__name__) from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Away(type(error).__name__) from error

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url, min_size=0, max_size=8, timeout=CONNECT_S, command_timeout=STATEMENT_S,
                    server_settings={"application_name": "kifiya-sink"},
                )  # fmt: skip
            return self._pool


async def _rows(connection: Any, query: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        await connection.execute(query, *map(list, zip(*rows, strict=True)))
