"""PostgreSQL adapter of the limiter: one statement that locks the lane's row, on the server's clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from schemas.lanes import Lane
from streams.limiter.store import StoreLimiter

RESERVE: Final = (Path(__file__).parent / "reserve.sql").read_text()
NOW: Final = (Path(__file__).parent / "now.sql").read_text()
ANSWER_S: Final = 0.5
LOCK_MS: Final = 300
"""How long the server waits for the lane's row; shorter than a client does, so that no question outlives its asker."""
STATEMENT_MS: Final = 400

Connect = Callable[[], Awaitable[Any]]


class PostgresLimiter(StoreLimiter):
    """Limiter of one lane over all its workers, on the clock of one PostgreSQL primary. One connection."""

    away = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)  # the last: it died while idle

    def __init__(
        self, url: str, lane: Lane, *, connect: Connect | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(lane, clock)
        self._url = url
        self._connect = connect or self._real
        self._connection: Any = None
        self._turn = asyncio.Lock()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    async def _time_us(self) -> int:
        now_us, allowed = await self._row(NOW)
        if not allowed:
            raise asyncpg.InsufficientPrivilegeError("limiter_reserve")
        return int(now_us)

    async def _reserve(self, lead_us: int) -> tuple[bool, int, int]:
        granted, number, now_us = await self._row(
            RESERVE, self._lane.name, self._lane.limit, self._window_us, min(lead_us, self._window_us)
        )
        return granted, number, now_us

    async def _row(self, query: str, *arguments: Any) -> Any:
        """One row. A connection that was left in the midst of an answer is of no more use."""
        async with self._turn:
            try:
                async with asyncio.timeout(ANSWER_S):
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self._connect()
                    return await self._connection.fetchrow(query, *arguments)
            except BaseException:
                self._drop()
                raise

    async def _real(self) -> Any:
        return await asyncpg.connect(
            self._url,
            timeout=ANSWER_S,
            target_session_attrs=SessionAttribute.read_write,
            server_settings={
                "application_name": "kifiya-limiter",
                "role": "kifiya_dispatch",
                "default_transaction_isolation": "read committed",
                "lock_timeout": str(LOCK_MS),
                "statement_timeout": str(STATEMENT_MS),
            },
        )

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()
