"""The relay: publishes what waits in the outbox, in its order, when Kafka is back. Each ingress process runs one.

One of them works at a time, holding PostgreSQL's advisory lock for a transaction: rows read, published, acked by Kafka,
deleted, committed. A crash midway publishes them again, which intake drops. A relay that hangs loses its transaction,
and so the lock, after ``IDLE_S``. One lock and not one a payment: the batches are what is fast, and order comes free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from prometheus_client import Counter, Gauge

from ingress.outbox import connect
from ops.failpoints import Failpoint
from ops.kafka.clients import Message, PublishError, RecordRefused
from ops.telemetry import logger
from schemas import topics

RELAYED: Final = Counter("kifiya_outbox_relayed", "Commands published out of the outbox by this process.")
ROWS: Final = Gauge("kifiya_outbox_rows", "Commands in the outbox, of all processes.")
BYTES: Final = Gauge("kifiya_outbox_bytes", "Bytes of their values.")
OLDEST: Final = Gauge("kifiya_outbox_oldest_seconds", "Age of the oldest command that waits in the outbox.")
REFUSED: Final = Gauge("kifiya_outbox_refused", "Commands in the outbox that Kafka refuses: they wait for a person.")

BEFORE_PUBLISH: Final = Failpoint("relay.before-publish")
AFTER_PUBLISH: Final = Failpoint("relay.after-publish")
AFTER_DELETE: Final = Failpoint("relay.after-delete")
AFTER_COMMIT: Final = Failpoint("relay.after-commit")

_SQL: Final = Path(__file__).parent / "sql"
_LEVEL: Final = (_SQL / "outbox_level.sql").read_text()
_NEXT: Final = (_SQL / "outbox_next.sql").read_text()
_REMOVE: Final = (_SQL / "outbox_remove.sql").read_text()
_REFUSE: Final = (_SQL / "outbox_refuse.sql").read_text()
_LOCK: Final = "SELECT pg_try_advisory_xact_lock($1)"
_LOCK_ID: Final = 0x6B696F62

BATCH: Final = 200
"""Commands published at once: at most 13 MB of them."""
LOOK_S: Final = 0.5
STATEMENT_S: Final = 3.0
PUBLISH_S: Final = 6.0
IDLE_S: Final = 10.0

Publish = Callable[[list[Message], float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Row:
    """One command in the outbox."""

    id: int
    payment_id: str
    message: Message


def first_of_each(rows: Iterable[Row]) -> list[Row]:
    """The rows up to the second one of any payment: a batch may fail in part, and must not turn two around. Pure."""
    found: dict[str, Row] = {}
    for row in rows:
        if row.payment_id in found:
            break
        found[row.payment_id] = row
    return list(found.values())


class Relay:
    """The loop. ``rows`` is how many commands were in the outbox when it was last looked at, None before."""

    def __init__(self, url: str, publish: Publish, away: Callable[[], bool]) -> None:
        self._url = url
        self._publish = publish
        self._away = away
        self._connection: Any = None
        self._failing = False
        self.rows: int | None = None

    @property
    def may_wait(self) -> bool:
        """Whether commands may wait in the outbox, as of the last look."""
        return self.rows != 0

    async def drained(self) -> None:
        """Raises PublishError while commands are known to wait."""
        if self.rows:
            raise PublishError(f"{self.rows} commands wait in the outbox")

    def check_room(self, rows_max: int) -> None:
        """Raises PublishError where the outbox was full when it was last looked at."""
        if (self.rows or 0) >= rows_max:
            raise PublishError("the outbox is full")

    async def run(self) -> None:
        """Look and relay, for ever."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(LOOK_S)
        finally:
            self._drop()

    async def step(self) -> None:
        """Look once, and publish all that waits while Kafka is there. Raises nothing."""
        try:
            waiting = await self._look()
            while waiting and not self._away() and await self._round():
                pass
            if waiting:
                await self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is, the rows stay and the next look tries again
            self._drop()
            if not self._failing:
                logger().warning("the outbox cannot be relayed", action="relay-failed", error=type(error).__name__)
            self._failing = True
        else:
            self._failing = False

    async def _look(self) -> int:
        """How many commands wait and may be published."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, STATEMENT_S, idle_s=IDLE_S)
        [level] = await self._connection.fetch(_LEVEL, timeout=STATEMENT_S)
        self.rows = int(level["rows"])
        ROWS.set(self.rows)
        BYTES.set(level["bytes"])
        REFUSED.set(level["refused"])
        OLDEST.set(level["oldest_s"] or 0)
        return self.rows - int(level["refused"])

    async def _round(self) -> bool:
        """Publish one batch. False: nothing waits, or another process does it."""
        async with self._connection.transaction():
            if not await self._connection.fetchval(_LOCK, _LOCK_ID, timeout=STATEMENT_S):
                return False
            rows = first_of_each(map(_row, await self._connection.fetch(_NEXT, BATCH, timeout=STATEMENT_S)))
            if not rows:
                return False
            await BEFORE_PUBLISH.reach()
            done = await self._send(rows)
            await AFTER_PUBLISH.reach()
            await self._connection.execute(_REMOVE, [row.id for row in done], timeout=STATEMENT_S)
            await AFTER_DELETE.reach()
        await AFTER_COMMIT.reach()
        RELAYED.inc(len(done))
        return True

    async def _send(self, rows: list[Row]) -> list[Row]:
        """Those that Kafka has; one that it refuses for ever is set aside. Raises PublishError."""
        try:
            await self._publish([row.message for row in rows], PUBLISH_S)
        except RecordRefused:
            return [row for row in rows if await self._alone(row)]
        return rows

    async def _alone(self, row: Row) -> bool:
        try:
            await self._publish([row.message], PUBLISH_S)
        except RecordRefused as error:
            reason = type(error.cause).__name__
            logger().error(
                "Kafka refuses an accepted command", action="outbox-refused", payment_id=row.payment_id, error=reason,
                hint="it stays in the table outbox: mend the topic's settings, then set refused to null",
            )  # fmt: skip
            await self._connection.execute(_REFUSE, row.id, reason, timeout=STATEMENT_S)
            return False
        return True

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _row(found: Any) -> Row:
    payment_id = str(found["payment_id"])
    headers = tuple((name, value.encode()) for name, value in orjson.loads(found["headers"]))
    return Row(found["id"], payment_id, Message(topics.COMMANDS, payment_id.encode(), found["value"], headers))
