"""SINK: writes events and dead letters to PostgreSQL, where HTTP clients and analysts read them.

Reads ``payments.events`` and ``payments.dead-letter``; writes rows, and dead letters for records that no row can hold.
A batch and its offset are one transaction, and only then may Kafka's offset be committed. Midway crash: the batch comes
again and changes nothing, since rows are keyed by (payment, version) and only a higher version overwrites.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from ops.kafka import faust_app
from ops.kafka.clients import Message, Publisher
from ops.telemetry import admin_server, logger
from schemas import codec, topics
from schemas.records import DeadLetter
from sinks import rows
from sinks.postgres import Away, Database, Refused
from sinks.rows import Batch, Record
from sinks.settings import SinkSettings

ROWS = Counter("kifiya_sink_records", "Records written to PostgreSQL.", ["topic"])
REFUSED = Counter("kifiya_sink_refused", "Records that no row can hold, by reason.", ["topic", "reason"])
BATCH = Histogram("kifiya_sink_batch_records", "Records in a batch.", buckets=(1, 10, 50, 100, 250, 500, 1000))
AGE = Gauge("kifiya_sink_age_seconds", "Age of the newest record written.", ["topic"])
POSTGRES_UP = Gauge("kifiya_sink_postgres_up", "1 while PostgreSQL takes what is written.")

BATCH_MAX: Final = 500
BATCH_WITHIN_S: Final = 0.05
PATIENCE_S: Final = 300.0
"""How long PostgreSQL may be away before the process gives up and is started anew."""
KEPT: Final = 4096

Publish = Callable[[list[Message]], Awaitable[None]]


class Sink:
    """The shell: rows written, then acked. Knows nothing of Faust."""

    def __init__(
        self, database: Database, publish: Publish, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._publish = publish
        self._clock = clock
        self.reachable = True

    async def handle(self, records: Sequence[Record]) -> None:
        """Write records of one partition. Raises Away after ``PATIENCE_S``, PublishError: then nothing may be acked."""
        for record, reason, detail in await self._write(records):
            await self._give_up(record, reason, detail)
        topic = records[-1].topic
        ROWS.labels(topic).inc(len(records))
        BATCH.observe(len(records))
        AGE.labels(topic).set(max(0.0, time.time() - records[-1].timestamp_ms / 1000))

    async def _write(self, records: Sequence[Record]) -> list[tuple[Record, str, str]]:
        """Write what can be written; what cannot, with the reason. A refused batch is halved until one row is left."""
        batch = rows.batch(records)
        try:
            await self._store(batch)
        except Refused as error:
            if len(records) == 1:
                return [(records[0], "refused-by-database", str(error))]
            middle = len(records) // 2
            return [*await self._write(records[:middle]), *await self._write(records[middle:])]
        return batch.refused

    async def _store(self, batch: Batch) -> None:
        """Write, again and again while PostgreSQL is away. Raises Refused, and Away in the end."""
        since, tries = self._clock(), 0
        while True:
            try:
                await self._database.write(batch)
            except Away as error:
                self._up(False)
                if self._clock() - since > PATIENCE_S:
                    raise
                tries += 1
                logger().warning(
                    "PostgreSQL is away, the batch waits", action="postgres-away", error=str(error), attempt=tries
                )
                await asyncio.sleep(min(2.0, 0.1 * 2.0 ** min(tries, 10)))
            else:
                self._up(True)
                return

    def _up(self, up: bool) -> None:  # noqa: FBT001 - one fact, one argument
        self.reachable = up
        POSTGRES_UP.set(up)

    async def _give_up(self, record: Record, reason: str, detail: str) -> None:
        """A dead letter; one that stands for a dead letter has no original, so it fits and cannot lead to a third."""
        REFUSED.labels(record.topic, reason).inc()
        logger().error(
            "a record cannot be written", action="refused", topic=record.topic, partition=record.partition,
            offset=record.offset, reason=reason, error=detail,
        )  # fmt: skip
        kept = b"" if record.topic == topics.DEAD_LETTER else record.value[:KEPT]
        letter = DeadLetter(
            reason=reason,
            detail=detail,
            stage="sink",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            original=kept,
            original_size=len(record.value),
            original_sha256=hashlib.sha256(record.value).hexdigest(),
            at_ms=time.time_ns() // 1_000_000,
        )
        key = f"{record.topic}/{record.partition}/{record.offset}".encode()
        await self._publish([Message(topics.DEAD_LETTER, key, codec.encode(letter))])


async def run(settings: SinkSettings) -> None:
    """Run the sink until SIGTERM or SIGINT. Raises SystemExit(1) where a batch could not be kept."""
    app = faust_app.create_app(topics.SINK_APP, settings.kafka, datadir=settings.data_dir)
    database = Database(settings.database_url)
    async with Publisher(settings.kafka) as publisher:
        sink = Sink(database, publisher.publish)

        async def agent(stream: Any) -> None:
            async for events in stream.noack().take_events(BATCH_MAX, within=BATCH_WITHIN_S):
                try:
                    await sink.handle([_record(event.message) for event in events])
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # nothing may leave the loop: the process ends, the offsets stay
                    faust_app.crash(app, error)
                    return
                for event in events:
                    faust_app.ack(event)

        for name in (topics.EVENTS, topics.DEAD_LETTER):
            app.agent(faust_app.topic(app, name), name=name, isolated_partitions=True)(agent)

        def health() -> dict[str, Any]:
            missing = app.missing + ([] if sink.reachable else ["postgres"])
            return {"ready": not missing, "missing": missing}

        async with admin_server(settings.admin_host, settings.admin_port, health):
            try:
                await faust_app.serve(app)
            finally:
                await database.close()


def _record(message: Any) -> Record:
    return Record(
        message.topic,
        message.partition,
        message.offset,
        int(message.timestamp * 1000) if message.timestamp else 0,
        message.value or b"",
    )
