"""SINK: writes events and dead letters to PostgreSQL, where HTTP clients and analysts read them.

Reads ``payments.events`` and ``payments.dead-letter``; writes rows, and dead letters for events that no row can hold.
A batch and its offset are one transaction, and only then may Kafka's offset be committed. Midway crash: the batch comes
again and changes nothing, since rows are keyed by (payment, version) and only a higher version overwrites.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from ops import trace
from ops.failpoints import Failpoint
from ops.kafka import agents, faust_app
from ops.kafka.clients import Message, Publisher, RecordRefused
from ops.telemetry import admin_server, logger
from schemas import topics
from sinks import refused, rows
from sinks.patience import Patience
from sinks.postgres import Database, Refused
from sinks.rows import Batch, Record, Refusal
from sinks.settings import SinkSettings

RECORDS = Counter("kifiya_sink_records", "Records handled.", ["topic"])
ROWS = Counter("kifiya_sink_rows", "Rows that were new or changed something.", ["table"])
REFUSED = Counter("kifiya_sink_refused", "Records without a row of their own kind, by reason.", ["topic", "reason"])
LOST = Counter("kifiya_sink_unstorable", "Dead letters of which no row at all could be stored; they stay in Kafka.")
BATCH = Histogram("kifiya_sink_batch_records", "Records in a batch.", buckets=(1, 10, 50, 100, 250, 500, 1000))
AGE = Gauge("kifiya_sink_age_seconds", "Age of the newest record when it was written.", ["topic"])

BEFORE_LETTER: Final = Failpoint("sink.before-letter")
AFTER_LETTER: Final = Failpoint("sink.after-letter")

BATCH_MAX: Final = 500
BATCH_WITHIN_S: Final = 0.05

Publish = Callable[[list[Message]], Awaitable[None]]


class Sink:
    """The shell: rows written, then acked. Knows nothing of Faust."""

    def __init__(self, database: Patience, publish: Publish) -> None:
        self._database = database
        self._publish = publish

    async def handle(self, records: Sequence[Record]) -> None:
        """Write records of one partition. Raises Away, PublishError: then nothing may be acked."""
        await self._give_up(await self._write(records))
        topic = records[-1].topic
        RECORDS.labels(topic).inc(len(records))
        BATCH.observe(len(records))
        AGE.labels(topic).set(max(0.0, time.time() - records[-1].timestamp_ms / 1000))

    async def _write(self, records: Sequence[Record]) -> list[Refusal]:
        """Write what can be written; what cannot. A batch that PostgreSQL refuses is halved down to one record."""
        batch = rows.batch(records)
        try:
            await self._store(batch)
        except Refused as error:
            if len(records) == 1:
                return await self._set_aside(records[0], str(error))
            middle = len(records) // 2
            return [*await self._write(records[:middle]), *await self._write(records[middle:])]
        return batch.refused

    async def _set_aside(self, record: Record, detail: str) -> list[Refusal]:
        """Write what can be said of a record whose row was refused, at least that it is done."""
        batch = rows.refused(record, detail)
        try:
            await self._store(batch)
        except Refused as error:
            LOST.inc()
            logger().error(
                "a dead letter cannot be stored, it stays in Kafka", action="unstorable", topic=record.topic,
                partition=record.partition, offset=record.offset, error=str(error),
            )  # fmt: skip
            await self._store(rows.nothing(record))
        return batch.refused

    async def _store(self, batch: Batch) -> None:
        for table, count in (await self._database.write(batch)).items():
            ROWS.labels(table).inc(count)

    async def _give_up(self, found: Sequence[Refusal]) -> None:
        """Publish a dead letter for each event; a dead letter that was refused has none, or there would be no end."""
        now_ms = time.time_ns() // 1_000_000
        for each in found:
            record = each.record
            REFUSED.labels(record.topic, each.reason).inc()
            logger().error(
                "a record cannot be written", action="refused", topic=record.topic, partition=record.partition,
                offset=record.offset, reason=each.reason, error=each.detail,
            )  # fmt: skip
        events = [each for each in found if each.record.topic != topics.DEAD_LETTER]
        if not events:
            return
        await BEFORE_LETTER.reach()
        try:
            await self._publish([refused.message(each, now_ms) for each in events])
        except RecordRefused:  # too large for this broker: the others may be stored, and once more is harmless
            await self._publish([refused.message(each, now_ms, cut=True) for each in events])
        await AFTER_LETTER.reach()


async def run(settings: SinkSettings) -> None:
    """Run the sink until SIGTERM or SIGINT. Raises SystemExit(1) where a batch could not be kept."""
    app = faust_app.create_app(topics.SINK_APP, settings.kafka, datadir=settings.data_dir)
    database = Database(settings.database_url)
    patience = Patience(database)
    async with Publisher(settings.kafka) as publisher:
        sink = Sink(patience, publisher.publish)

        async def handle(messages: list[Any]) -> None:
            await sink.handle([_record(message) for message in messages])

        agent = agents.in_batches(app, handle, most=BATCH_MAX, within_s=BATCH_WITHIN_S)
        for name in (topics.EVENTS, topics.DEAD_LETTER):
            app.agent(faust_app.topic(app, name), name=name, isolated_partitions=True)(agent)

        def health() -> dict[str, Any]:
            missing = app.missing + ([] if patience.reachable else ["postgres"])
            return {"ready": not missing, "missing": missing}

        async with admin_server(settings.admin_host, settings.admin_port, health):
            watching = asyncio.create_task(patience.watch())
            try:
                await faust_app.serve(app)
            finally:
                watching.cancel()
                database.close()


def _record(message: Any) -> Record:
    return Record(
        message.topic,
        message.partition,
        message.offset,
        round(message.timestamp * 1000) if message.timestamp else 0,
        message.value or b"",
        trace.of(message.headers),
    )
