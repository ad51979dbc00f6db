"""The archive: payments that the ledger may have forgotten, in PostgreSQL's projection.

Asked once before a payment's first call, where the ledger has no entry. While PostgreSQL is away the payment goes on: a
key that is used again after the ledger's window (7 days) is by the custom of the trade (Stripe forgets after 24 hours,
PayPal after 6) a new payment, so the question is a courtesy, and must not stop all charging for a database's sake.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import asyncpg

from schemas.records import FINAL, State
from streams.errors import ArchiveAway

QUERY: Final = (Path(__file__).parent / "find_payment.sql").read_text()
AWAY: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The last is what asyncpg raises where the server went while the connection was idle."""
ANSWER_S: Final = 0.5
REST_S: Final = 5.0
"""After a failure nobody asks for so long: a PostgreSQL that hangs costs one payment half a second, not each."""


@dataclass(frozen=True, slots=True)
class Archived:
    """A payment as the projection last saw it."""

    state: State
    version: int
    fingerprint: str

    @property
    def called(self) -> bool:
        """Whether a lane has worked on it: intake's own event is version 1."""
        return self.version > 1

    @property
    def final(self) -> bool:
        """Whether it had ended."""
        return self.state in FINAL


class Archive(Protocol):
    """Port: an async context manager."""

    async def find(self, payment_id: str) -> Archived | None:
        """The payment, or None where it is not known. Raises ArchiveAway within half a second."""
        ...

    async def __aenter__(self) -> Self:
        """Open; connects nothing yet."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...


class MemoryArchive:
    """Archive over a mapping; empty, it stands for a gateway without a database."""

    def __init__(self, known: Mapping[str, Archived] | None = None) -> None:
        self._known = known or {}

    async def find(self, payment_id: str) -> Archived | None:
        """See the port."""
        return self._known.get(payment_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


class PostgresArchive:
    """Archive over the table that the sink writes; one connection, opened at the first question."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._rest_until = float("-inf")
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def find(self, payment_id: str) -> Archived | None:
        """See the port."""
        if self._clock() < self._rest_until:
            raise ArchiveAway("resting")
        try:
            async with asyncio.timeout(ANSWER_S), self._turn:
                row = await (await self._connected()).fetchrow(QUERY, payment_id)
        except AWAY as error:
            self._rest_until = self._clock() + REST_S
            self._drop()
            raise ArchiveAway(type(error).__name__) from error
        except asyncio.CancelledError:
            self._drop()  # in the midst of an answer it is of no more use
            raise
        return None if row is None else Archived(State(row["state"]), row["version"], row["fingerprint"])

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=ANSWER_S,
                server_settings={
                    "application_name": "kifiya-dispatch",
                    "role": "kifiya_dispatch",
                    "default_transaction_read_only": "on",
                },
            )
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()


def open_archive(url: str) -> MemoryArchive | PostgresArchive:
    """The archive of a gateway; an empty URL stands for none."""
    return PostgresArchive(url) if url else MemoryArchive()
