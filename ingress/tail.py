"""The one consumer of a process at the end of ``payments.events``: it reads while somebody wants to know."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from ingress.presence import Away
from ingress.recent import Recent
from ops import trace
from ops.kafka.clients import KafkaSettings, end_offsets
from ops.kafka.reading import partition_counts
from ops.telemetry import logger
from schemas import codec, topics
from schemas.records import PaymentEvent

IDLE_S: Final = 60.0
"""Nobody has asked for so long: stop reading."""
REST_S: Final = 0.5
POLL_MS: Final = 500
BATCH: Final = 500
WAIT_MS: Final = {"apache": 500, "tansu": 50}
"""How long a broker may hold a fetch; Tansu answers when it is over, whatever has come in meanwhile."""


def consumer(kafka: KafkaSettings) -> AIOKafkaConsumer:
    """A consumer in no group, that reads committed records and never jumps over what is gone."""
    return AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        fetch_max_wait_ms=WAIT_MS[kafka.dialect],
        max_partition_fetch_bytes=262_144,
        request_timeout_ms=5_000,
    )


def merchant_of(value: bytes | None) -> str | None:
    """Whose event this is; None: nobody's, as it is no event."""
    try:
        return codec.decode(value, PaymentEvent).merchant_id
    except codec.DecodeError:
        return None


class Tail:
    """Keeps ``Recent`` at the topic's end. What it had read stays while Kafka is away, and it goes on from there."""

    def __init__(self, kafka: KafkaSettings, *, idle_s: float = IDLE_S) -> None:
        self._kafka = kafka
        self._idle_s = idle_s
        self._recent: Recent | None = None
        self._there = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self.followers = 0
        """Streams that follow: while there are any it goes on."""

    async def recent(self, within_s: float) -> Recent:
        """The recent events; begins to read where nobody had asked. Raises Away when Kafka does not answer in time."""
        self._asked_at = time.monotonic()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        if self._recent is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._there.wait(), within_s)
        if self._recent is None:
            raise Away("kafka: the events cannot be read")
        return self._recent

    @property
    def present(self) -> Recent | None:
        """The recent events, where they are there."""
        return self._recent

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            while not self._idle():
                try:
                    await self._read()
                except (
                    OffsetOutOfRangeError
                ):  # it was away for longer than the topic keeps, or the topic is another one
                    self._forget()
                except Exception as error:  # noqa: BLE001 - whatever it is, it is looked for again
                    logger().warning("events cannot be read", action="tail-away", error=type(error).__name__)
                    await asyncio.sleep(REST_S)
        finally:
            self._forget()
            self._task = None

    def _idle(self) -> bool:
        return not self.followers and time.monotonic() - self._asked_at > self._idle_s

    def _forget(self) -> None:
        self._recent = None
        self._there.clear()

    async def _read(self) -> None:
        count = len(self._recent.positions) if self._recent else (await partition_counts(self._kafka))[topics.EVENTS]
        parts = [TopicPartition(topics.EVENTS, number) for number in range(count)]
        if self._recent is None:
            ends = await end_offsets(self._kafka, parts)
            self._recent = Recent([ends[part] for part in parts])
        recent = self._recent
        reader = consumer(self._kafka)
        try:
            await reader.start()
            reader.assign(parts)
            for part in parts:
                reader.seek(part, recent.positions[part.partition])
            self._there.set()
            while not self._idle():
                found = await reader.getmany(timeout_ms=POLL_MS, max_records=BATCH)
                for part, records in found.items():
                    for record in records:
                        merchant_id = merchant_of(record.value)
                        if merchant_id is None:
                            recent.advance(part.partition, record.offset + 1)
                        else:
                            context = trace.of(record.headers)
                            recent.add(part.partition, record.offset, merchant_id, record.value, context)
                    recent.advance(part.partition, await reader.position(part))
                await asyncio.sleep(0)
        finally:
            await reader.stop()
