"""The outbox: accepted commands that wait in PostgreSQL while Kafka is away. What is in it is durable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson
from prometheus_client import Counter

from ingress.batches import Batches
from ingress.presence import Presence
from ops.kafka.clients import Message

WRITTEN: Final = Counter("kifiya_outbox_written", "Commands put into the outbox by this process.")
FULL: Final = Counter("kifiya_outbox_full", "Commands for which the outbox had no room.")

_SQL: Final = Path(__file__).parent / "sql"
_APPEND: Final = (_SQL / "outbox_append.sql").read_text()
_FIND: Final = (_SQL / "outbox_find.sql").read_text()
_PING: Final = (_SQL / "outbox_ping.sql").read_text()


class Full(Exception):
    """The outbox holds as much as it may."""


@dataclass(frozen=True, slots=True)
class Append:
    """A command to put in, keyed by its payment; ``behind``: only where an older one of that payment waits."""

    message: Message
    behind: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the outbox may hold, of all processes together; bytes are those of the records' values."""

    rows: int
    bytes: int


class Outbox:
    """The table, over one connection. Raises Away instead of waiting longer than twice ``timeout_s``."""

    def __init__(self, url: str, bounds: Bounds, *, timeout_s: float = 0.3) -> None:
        self._url = url
        self._bounds = bounds
        self._timeout_s = timeout_s
        self._presence = Presence("outbox", self._look)
        self._batches: Batches[Append | str, Any] = Batches(self._presence, self._carry, timeout_s=timeout_s)
        self._connection: asyncpg.Connection | None = None

    async def close(self) -> None:
        """Close the connection."""
        await self._presence.close()
        self._drop()

    async def append(self, message: Message, *, behind: bool = False) -> bool:
        """Put a command in, durable on return; False: no older one of its payment waits, as ``behind`` asks for.

        Raises Away, after which it may be in or not, and Full.
        """
        found: bool = await self._batches.ask(Append(message, behind))
        return found

    async def find(self, payment_id: str) -> bytes | None:
        """The value of the payment's first command that waits. Raises Away."""
        found: bytes | None = await self._batches.ask(payment_id)
        return found

    async def ping(self) -> None:
        """Whether the table can be asked. Raises Away."""
        await self._batches.ask("00000000-0000-0000-0000-000000000000")

    async def _carry(self, asks: list[Append | str]) -> list[Any]:
        """One round trip a kind of ask, and one transaction for all that is put in."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            ids = [ask for ask in asks if isinstance(ask, str)]
            rows = {str(row["payment_id"]): row["value"] for row in await self._fetch(_FIND, ids)} if ids else {}
            put = iter(await self._put([ask for ask in asks if isinstance(ask, Append)]))
        except BaseException:
            self._drop()
            raise
        return [rows.get(ask) if isinstance(ask, str) else next(put) for ask in asks]

    async def _put(self, asks: Sequence[Append]) -> list[bool | Full]:
        if not asks:
            return []
        columns = zip(*map(_columns, asks), strict=True)
        [answer] = await self._fetch(_APPEND, *map(list, columns), self._bounds.rows, self._bounds.bytes)
        if not answer["room"]:
            FULL.inc(len(answer["places"]))
            return [Full() for _ in asks]
        due = set(answer["places"])
        WRITTEN.inc(len(due))
        return [place in due for place in range(1, len(asks) + 1)]

    async def _fetch(self, query: str, *arguments: Any) -> Any:
        assert self._connection is not None  # noqa: S101 - for the type checker
        return await self._connection.fetch(query, *arguments)

    async def _connect(self) -> asyncpg.Connection:
        return await connect(self._url, self._timeout_s, idle_s=self._timeout_s)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _look(self) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        await self._fetch(_PING)


async def connect(url: str, timeout_s: float, *, idle_s: float) -> asyncpg.Connection:
    """A connection whose commits are on disk when they are answered, and whose open transactions end by themselves."""
    return await asyncpg.connect(
        url,
        timeout=timeout_s,
        server_settings={
            "application_name": "kifiya-outbox",
            "role": "kifiya_outbox",
            "synchronous_commit": "on",
            "statement_timeout": str(max(1, int(timeout_s * 1000))),
            "idle_in_transaction_session_timeout": str(max(1, int(idle_s * 1000))),
        },
    )


def _columns(ask: Append) -> tuple[str, bytes, str, bool]:
    message = ask.message
    headers = orjson.dumps([(name, value.decode("ascii")) for name, value in message.headers]).decode()
    return (message.key or b"").decode(), message.value or b"", headers, ask.behind
