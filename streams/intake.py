"""INTAKE: decodes and validates commands, moves them home, removes duplicates, routes payments to their lanes.

Reads ``payments.commands``; writes the lanes' queues, cancels, PENDING events, dead letters, then its memory of keys
seen. Batches per partition: all that follows is acked by the broker, then the memory is, then the batch's offsets may
be committed. Midway crash: the batch comes again; what was remembered with the same coordinates is forwarded again.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, Final

from aiokafka import TopicPartition
from prometheus_client import Counter, Gauge, Histogram

from ops.failpoints import Failpoint
from ops.kafka import agents, done, faust_app
from ops.kafka.clients import Message, Publisher, RecordRefused
from ops.kafka.tables import create_table
from ops.telemetry import admin_server, logger
from schemas import pulse, topics
from streams import dedup
from streams.admission import EVERY
from streams.pulse import Heart
from streams.router import Plan, Record, Router, letter_of
from streams.settings import StreamSettings
from streams.share import Share
from streams.stores.ledger import Gate, Store

DECISIONS = Counter("kifiya_intake_commands", "Commands by what was done with them.", ["decision"])
LETTERS = Counter("kifiya_intake_dead_letters", "Dead letters of intake, by reason.", ["reason"])
BATCH = Histogram("kifiya_intake_batch_records", "Records in a batch.", buckets=(1, 10, 50, 100, 250, 500, 1000))
AGE = Gauge("kifiya_intake_age_seconds", "Age of the newest record handled.")
REMEMBERED = Gauge("kifiya_intake_remembered_keys", "Payments in the deduplication table.")

BEFORE_PUBLISH: Final = Failpoint("intake.before-publish")
AFTER_PUBLISH: Final = Failpoint("intake.after-publish")
AFTER_REMEMBER: Final = Failpoint("intake.after-remember")
AFTER_TOMBSTONES: Final = Failpoint("intake.after-tombstones")

Publish = Callable[[list[Message]], Awaitable[None]]

BATCH_MAX: Final = 500
BATCH_WITHIN_S: Final = 0.02
SWEEP_S: Final = 5.0
SWEEP_MAX: Final = 1000
"""Tombstones written at once: the event loop is free between two such batches."""


@dataclass(slots=True)
class Intake:
    """The shell: does what the plan says, in the order that loses nothing."""

    router: Router
    memory: Store
    publish: Publish
    gate: Gate = nullcontext
    share: Share | None = None

    async def handle(self, records: list[Record]) -> None:
        """Publish, remember durably, remember locally. Raises PublishError: then nothing may be acked."""
        now_ms = time.time_ns() // 1_000_000
        partition = records[0].partition
        plan = self.router.plan(records, self.memory.parts.of(partition), now_ms, self.share)
        await BEFORE_PUBLISH.reach()
        try:
            await self.publish(plan.messages)
        except RecordRefused as refused:
            logger().warning("the broker refuses a record", action="record-refused", error=str(refused))
            await self._one_by_one(plan, now_ms)
        await AFTER_PUBLISH.reach()
        if plan.remember:
            await self.memory.append(partition, plan.remember.items())
            await AFTER_REMEMBER.reach()
            self.memory.parts.of(partition).update(plan.remember)
        for decision, count in collections.Counter(plan.decisions).items():
            DECISIONS.labels(decision).inc(count)
        for reason in plan.letters:
            LETTERS.labels(reason).inc()
        BATCH.observe(len(records))
        AGE.set(max(0.0, (now_ms - records[-1].timestamp_ms) / 1000))
        REMEMBERED.set(len(self.memory.parts))

    async def _one_by_one(self, plan: Plan, now_ms: int) -> None:
        """Some record is refused for good: the others are stored, its source becomes a dead letter.

        A payment whose task was refused is not remembered: it was not forwarded, and its command may be replayed.
        """
        for message, source in zip(plan.messages, plan.sources, strict=True):
            try:
                await self.publish([message])
            except RecordRefused as error:
                await self.publish([letter_of(source, "refused-by-broker", str(error), now_ms, cut=True)])
                plan.letters.append("refused-by-broker")
                if message.topic != topics.EVENTS and message.key is not None:
                    plan.remember.pop(message.key, None)

    async def forget(self, older_than_ms: int) -> int:
        """Write tombstones for what was seen before this moment, then forget it; how many there were.

        Entries stand in the order of their records, and are never changed: the old ones come first.
        """
        count = 0
        for partition in self.memory.parts.partitions():
            while True:
                part = self.memory.parts.of(partition)
                old = [
                    key
                    for key, _ in takewhile(
                        lambda entry: dedup.seen_at_ms(entry[1]) < older_than_ms, islice(part.items(), SWEEP_MAX)
                    )
                ]
                if not old:
                    break
                async with self.gate():
                    await self.memory.append(partition, [(key, None) for key in old])
                    await AFTER_TOMBSTONES.reach()
                for key in old:
                    self.memory.parts.put(partition, key, None)
                count += len(old)
                await asyncio.sleep(0)
        return count


async def run(settings: StreamSettings) -> None:
    """Run intake until SIGTERM or SIGINT. Raises SystemExit(1) where a handoff could not be kept."""
    app = faust_app.create_app(topics.INTAKE_APP, settings.kafka, datadir=settings.data_dir)
    async with Publisher(settings.kafka) as publisher:
        store = create_table(app, topics.SEEN_TABLE, settings.command_partitions, publisher)
        lanes = settings.lane_table()
        share = Share(lanes, settings.weights())
        admission = settings.admission()
        router = Router(tuple(lanes), settings.command_partitions, admission)
        intake = Intake(router, store, publisher.publish, app.writing, share)
        if admission.merchants is None:
            logger().warning("whoever may write payments.commands may name any merchant", action="kafka-merchants-open")

        heart = Heart(settings.redis_url, pulse.INTAKE, ahead=share.ahead)

        async def handle(messages: list[Any]) -> None:
            records = [_record(message) for message in messages]
            first, after = records[0], records[-1].offset + 1
            with heart.handling(topics.COMMANDS, first.partition, first.offset, after=after):
                await intake.handle(records)

        agent = agents.in_batches(app, handle, most=BATCH_MAX, within_s=BATCH_WITHIN_S)
        app.agent(faust_app.topic(app, topics.COMMANDS), name="intake", isolated_partitions=True)(agent)

        async def sweep() -> None:
            while True:
                await asyncio.sleep(SWEEP_S)
                try:
                    await intake.forget(time.time_ns() // 1_000_000 - int(settings.dedup_window_s * 1000))
                except Exception as error:  # noqa: BLE001 - whatever it is, the next sweep tries again
                    logger().warning("the sweep failed", action="sweep-failed", error=type(error).__name__)

        def health() -> dict[str, Any]:
            named = EVERY if admission.merchants is None else len(admission.merchants)
            return {"ready": not app.missing, "missing": app.missing, "kafka_merchants": named}

        async with (
            admin_server(settings.admin_host, settings.admin_port, health),
            faust_app.beside(app, sweep(), heart.beat(), *_watch(settings, app, share)),
        ):
            await faust_app.serve(app)


def _watch(settings: StreamSettings, app: faust_app.App, share: Share) -> list[Coroutine[Any, Any, None]]:
    """For each lane: tell ``share`` again and again what is done."""

    def told(lane: str, count: int, *, idle: bool) -> None:
        if app.assigned:
            found = sum(tp.topic == topics.COMMANDS for tp in app.consumer.assignment())
            share.owns(max(1, found) / settings.command_partitions)
        share.done(lane, count, idle=idle)

    return [
        done.watch(
            settings.kafka,
            topics.dispatch_app(lane),
            [TopicPartition(name, n) for name in topics.queue_topics(lane) for n in range(settings.lane_partitions)],
            functools.partial(told, lane),
        )
        for lane in settings.lane_table()
    ]


def _record(message: Any) -> Record:
    headers = message.headers
    pairs = headers.items() if isinstance(headers, dict) else headers or ()
    return Record(
        message.partition,
        message.offset,
        round(message.timestamp * 1000) if message.timestamp else 0,
        message.value or b"",
        tuple((str(name), value) for name, value in pairs),
    )
