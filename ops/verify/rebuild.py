"""The projection anew: everything the topics hold is written into tables of its own, which then replace the old rows.

The long part runs beside the sink and the readers: temporary tables of the same names and shapes take the rows through
the sink's own SQL. The short part is one transaction: it locks the tables, takes what came meanwhile, and replaces.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import asyncpg

from ops.kafka.clients import KafkaSettings
from ops.kafka.reading import present
from ops.verify.projection import of
from schemas import topics
from sinks import postgres, rows
from sinks.rows import Record

TABLES: Final = ("payments", "payment_events", "dead_letters", "sink_offsets")
BATCH: Final = 500
LOCK_S: Final = 30.0
_SCHEMA: Final = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'payments'::regclass"


class Older(Exception):
    """PostgreSQL holds payments that the topics do not hold any more: rebuilding would lose them."""


@dataclass(slots=True)
class Rebuilt:
    """How many records were replayed, and how many rows stand now."""

    records: int = 0
    payments: int = 0
    events: int = 0
    dead_letters: int = 0


async def rebuild(
    kafka: KafkaSettings, database_url: str, *, discard: bool = False, tell: Callable[[int], None] = lambda _: None
) -> Rebuilt:
    """Replace the projection by what the topics say; ``tell`` hears now and then how many records are replayed.

    Raises Older (unless ``discard``; then nothing was changed), UnknownTopic, KafkaError, OSError, asyncpg's errors.
    """
    db = await asyncpg.connect(database_url, timeout=5, server_settings={"role": "kifiya_ops"})
    try:
        schema = await db.fetchval(_SCHEMA)
        for table in TABLES:
            await db.execute(f"CREATE TEMP TABLE {table} (LIKE {schema}.{table} INCLUDING ALL)")
        replay = _Replay(db, tell)
        await replay.run(kafka)
        async with db.transaction():
            await db.execute(f"SET LOCAL lock_timeout = '{int(LOCK_S)}s'")
            names = ", ".join(f"{schema}.{table}" for table in TABLES)
            await db.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            await replay.run(kafka)
            lost = await db.fetchval(
                f"SELECT count(*) FROM {schema}.payments AS old WHERE NOT EXISTS "  # noqa: S608 - our own names
                "(SELECT FROM pg_temp.payments AS new WHERE new.payment_id = old.payment_id)"
            )
            if lost and not discard:
                raise Older(lost)
            await db.execute(f"TRUNCATE {names}")
            counts = {
                table: await _copied(db, f"INSERT INTO {schema}.{table} SELECT * FROM pg_temp.{table}")  # noqa: S608 - our own names
                for table in TABLES
            }
        return Rebuilt(replay.count, counts["payments"], counts["payment_events"], counts["dead_letters"])
    finally:
        await db.close(timeout=5)


async def _copied(db: asyncpg.Connection, statement: str) -> int:
    said: str = await db.execute(statement)
    return int(said.rpartition(" ")[2])


class _Replay:
    """Writes records through the sink's SQL; each run goes on where the one before ended."""

    def __init__(self, db: asyncpg.Connection, tell: Callable[[int], None]) -> None:
        self._db = db
        self._tell = tell
        self._since: dict[str, dict[int, int]] = {topics.EVENTS: {}, topics.DEAD_LETTER: {}}
        self.count = 0

    async def run(self, kafka: KafkaSettings) -> None:
        """Write what the topics hold now."""
        for topic, since in self._since.items():
            async with aclosing(_batches(kafka, topic, dict(since))) as batches:
                async for batch in batches:
                    await self._write(batch)
                    since[batch[-1].partition] = batch[-1].offset + 1
                    self.count += len(batch)
                    self._tell(self.count)

    async def _write(self, records: list[Record]) -> None:
        """A batch, or where PostgreSQL refuses it its halves, down to the one record that has no row of its own."""
        try:
            async with self._db.transaction():
                await postgres.store(self._db, rows.batch(records))
        except asyncpg.PostgresError as error:
            if not isinstance(postgres.translate(error), postgres.Refused):
                raise
            if len(records) > 1:
                middle = len(records) // 2
                await self._write(records[:middle])
                await self._write(records[middle:])
                return
            async with self._db.transaction():
                await postgres.store(self._db, rows.refused(records[0], type(error).__name__))


async def _batches(kafka: KafkaSettings, topic: str, since: dict[int, int]) -> AsyncGenerator[list[Record], None]:
    """The topic's records from these offsets on, in batches of one partition each."""
    held: dict[int, list[Record]] = {}
    async with aclosing(present(kafka, topic, since=since)) as found:
        async for record in found:
            batch = held.setdefault(record.partition, [])
            batch.append(of(record))
            if len(batch) == BATCH:
                yield held.pop(record.partition)
    for batch in held.values():
        yield batch
