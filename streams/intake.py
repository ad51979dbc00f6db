"""INTAKE: decodes and validates commands, moves them home, removes duplicates, routes payments to their lanes.

Reads ``payments.commands``; writes lane and cancel topics, PENDING events, dead letters, then its memory of keys seen.
Batches per partition: all that follows is acked by the broker, then the memory is, then the batch's offsets may be committed.
Midway crash: the batch comes again; what was remembered with the same coordinates is forwarded again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson
from prometheus_client import Counter, Gauge, Histogram

from ops.kafka import faust_app
from ops.kafka.clients import Message, Publisher, RecordRefused, partition_for
from ops.telemetry import admin_server, logger
from schemas import codec, command, topics
from schemas.command import InvalidCommand
from schemas.records import CommandType, EventType, PaymentCommand, PaymentEvent, PaymentTask, State, TaskKind
from schemas.strict_json import InvalidJson, loads
from streams import dead_letter, dedup
from streams.dedup import Seen, Verdict
from streams.settings import StreamSettings

DECISIONS = Counter("kifiya_intake_commands", "Commands by what was done with them.", ["decision"])
LETTERS = Counter("kifiya_intake_dead_letters", "Dead letters of intake, by reason.", ["reason"])
BATCH = Histogram("kifiya_intake_batch_records", "Records in a batch.", buckets=(1, 10, 50, 100, 250, 500, 1000))
AGE = Gauge("kifiya_intake_age_seconds", "Age of the newest record handled.")
REMEMBERED = Gauge("kifiya_intake_remembered_keys", "Payments in the deduplication table.")

BATCH_MAX: Final = 500
BATCH_WITHIN_S: Final = 0.02
SWEEP_S: Final = 60.0
SWEEP_MAX: Final = 5000
REHOMED: Final = "rehomed-from"


@dataclass(slots=True)
class Record:
    """One record of the commands topic."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class Plan:
    """What a batch leads to: records to publish, and what to remember once they are stored."""

    messages: list[Message] = field(default_factory=list)
    sources: list[Record] = field(default_factory=list)
    remember: dict[bytes, bytes] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)

    def add(self, record: Record, *messages: Message) -> None:
        """Publish these because of that record."""
        self.messages += messages
        self.sources += [record] * len(messages)


@dataclass(frozen=True, slots=True)
class Router:
    """The pure part: records and memory in, a plan out."""

    lanes: tuple[str, ...]
    partitions: int

    def plan(self, records: Iterable[Record], memory: Any, now_ms: int) -> Plan:
        """Decide on each record in order; later ones see what earlier ones of the batch will leave in memory."""
        plan = Plan()
        for record in records:
            try:
                self._route(record, memory, plan, now_ms)
            except InvalidCommand as error:
                keep = error.code != "card-number"
                self._letter(plan, record, error.code, f"{error.field}: {error.detail}", now_ms, keep=keep)
            except (codec.DecodeError, InvalidJson) as error:
                self._letter(plan, record, "undecodable", str(error), now_ms)
        return plan

    def _route(self, record: Record, memory: Any, plan: Plan, now_ms: int) -> None:
        asked = self._command(record)
        assert asked.payment_id is not None  # noqa: S101 - schemas.command.check sets it
        key = asked.payment_id.encode()
        home = partition_for(key, self.partitions)
        if home != record.partition:
            self._move_home(record, key, home, plan, now_ms)
            return
        value = plan.remember.get(key) or memory.get(key)
        seen = dedup.decode(value) if value else None
        if asked.type is CommandType.CANCEL:
            self._cancel(record, asked, seen, plan, now_ms)
        else:
            self._create(record, asked, seen, plan, now_ms)

    def _command(self, record: Record) -> PaymentCommand:
        if len(record.value) > command.MAX_BYTES:
            raise InvalidCommand("(body)", f"is larger than {command.MAX_BYTES} bytes", "too-large")
        lanes = frozenset(self.lanes)
        if record.value[:1] == b"{":
            return command.from_json(loads(record.value), lanes=lanes, accepted_at_ms=record.timestamp_ms)
        return command.check(codec.decode(record.value, PaymentCommand), lanes=lanes)

    def _move_home(self, record: Record, key: bytes, home: int, plan: Plan, now_ms: int) -> None:
        """Once only: a record that is still not at home after its move would travel for ever."""
        if any(name == REHOMED for name, _ in record.headers):
            self._letter(plan, record, "not-home", "the record was moved once and is still not at home", now_ms)
            return
        origin = (REHOMED, f"{record.partition}/{record.offset}".encode())
        plan.add(record, Message(topics.COMMANDS, key, record.value, (*record.headers, origin), home))
        plan.decisions.append("rehomed")

    def _create(self, record: Record, asked: PaymentCommand, seen: Seen | None, plan: Plan, now_ms: int) -> None:
        fingerprint = command.fingerprint(asked)
        verdict = dedup.decide(seen, partition=record.partition, offset=record.offset, fingerprint=fingerprint)
        plan.decisions.append(verdict.value)
        match verdict:
            case Verdict.DUPLICATE:
                return
            case Verdict.CONFLICT:
                self._letter(
                    plan, record, "idempotency-conflict", "the key was used for another payment", now_ms, asked=asked
                )
                return
            case Verdict.NEW:
                seen = self._seen(record, asked, fingerprint, now_ms)
                plan.remember[(asked.payment_id or "").encode()] = dedup.encode(seen)
            case Verdict.REPLAY:
                pass
        assert seen is not None  # noqa: S101 - for the type checker
        task = _task(asked, seen)
        key = task.payment_id.encode()
        plan.add(
            record,
            Message(topics.lane_topic(task.lane), key, codec.encode(task)),
            Message(topics.EVENTS, key, codec.encode(_pending(task))),
        )

    def _seen(self, record: Record, asked: PaymentCommand, fingerprint: str, now_ms: int) -> Seen:
        return Seen(
            partition=record.partition,
            offset=record.offset,
            seen_at_ms=now_ms,
            accepted_at_ms=record.timestamp_ms if asked.accepted_at_ms is None else asked.accepted_at_ms,
            amount_minor=asked.amount_minor or 0,
            fingerprint=fingerprint,
            lane=asked.lane or self.lanes[0],
            merchant_id=asked.merchant_id or "",
            idempotency_key=asked.idempotency_key or "",
            currency=asked.currency or "",
            payment_method=asked.payment_method or "",
        )

    def _cancel(self, record: Record, asked: PaymentCommand, seen: Seen | None, plan: Plan, now_ms: int) -> None:
        if seen is None or (asked.merchant_id is not None and asked.merchant_id != seen.merchant_id):
            self._letter(plan, record, "unknown-payment", "no such payment to cancel", now_ms, asked=asked)
            return
        plan.decisions.append("cancel")
        task = _task(replace(asked, customer_id=None, description=None, metadata={}), seen, kind=TaskKind.CANCEL)
        plan.add(record, Message(topics.cancel_topic(seen.lane), task.payment_id.encode(), codec.encode(task)))

    def _letter(  # noqa: PLR0913 - a letter says it all
        self,
        plan: Plan,
        record: Record,
        reason: str,
        detail: str,
        now_ms: int,
        *,
        asked: PaymentCommand | None = None,
        keep: bool = True,
    ) -> None:
        LETTERS.labels(reason).inc()
        plan.decisions.append("dead-letter")
        plan.add(record, _letter_of(record, reason, detail, now_ms, asked=asked, keep=keep))


def _task(asked: PaymentCommand, seen: Seen, *, kind: TaskKind = TaskKind.CREATE) -> PaymentTask:
    """The payment's task; what identifies and prices it comes from memory, the rest from the command."""
    return PaymentTask(
        kind=kind,
        payment_id=asked.payment_id or "",
        merchant_id=seen.merchant_id,
        idempotency_key=seen.idempotency_key,
        fingerprint=seen.fingerprint,
        amount_minor=seen.amount_minor,
        currency=seen.currency,
        payment_method=seen.payment_method,
        customer_id=asked.customer_id,
        description=asked.description,
        metadata=asked.metadata,
        lane=seen.lane,
        expires_at_ms=asked.expires_at_ms,
        accepted_at_ms=seen.accepted_at_ms,
    )


def _pending(task: PaymentTask) -> PaymentEvent:
    """Version 1 of every payment."""
    return PaymentEvent(
        type=EventType.STATE_CHANGED,
        version=1,
        state=State.PENDING,
        payment_id=task.payment_id,
        merchant_id=task.merchant_id,
        idempotency_key=task.idempotency_key,
        fingerprint=task.fingerprint,
        amount_minor=task.amount_minor,
        currency=task.currency,
        payment_method=task.payment_method,
        customer_id=task.customer_id,
        description=task.description,
        metadata=task.metadata,
        lane=task.lane,
        expires_at_ms=task.expires_at_ms,
        accepted_at_ms=task.accepted_at_ms,
        at_ms=task.accepted_at_ms,
    )


def _letter_of(  # noqa: PLR0913 - a letter says it all
    record: Record, reason: str, detail: str, now_ms: int, *, asked: PaymentCommand | None = None, keep: bool = True
) -> Message:
    return dead_letter.message(
        dead_letter.letter(
            reason=reason,
            detail=detail,
            stage="intake",
            topic=topics.COMMANDS,
            partition=record.partition,
            offset=record.offset,
            original=record.value,
            payment_id=asked.payment_id if asked else None,
            merchant_id=asked.merchant_id if asked else None,
            at_ms=now_ms,
            keep_original=keep,
        )
    )


@dataclass(slots=True)
class Intake:
    """The shell: does what the plan says, in the order that loses nothing."""

    router: Router
    memory: Any
    publisher: Publisher
    changelog: str

    async def handle(self, records: list[Record]) -> None:
        """Publish, remember durably, remember locally. Raises PublishError: then nothing may be acked."""
        now_ms = time.time_ns() // 1_000_000
        plan = self.router.plan(records, self.memory, now_ms)
        try:
            await self.publisher.publish(plan.messages)
        except RecordRefused as refused:
            await self._one_by_one(plan, refused, now_ms)
        partition = records[0].partition
        await self.publisher.publish(
            [Message(self.changelog, key, value, partition=partition) for key, value in plan.remember.items()]
        )
        self.memory.update(plan.remember)
        for decision in plan.decisions:
            DECISIONS.labels(decision).inc()
        BATCH.observe(len(records))
        AGE.set(max(0.0, (now_ms - records[-1].timestamp_ms) / 1000))
        REMEMBERED.set(len(self.memory))

    async def _one_by_one(self, plan: Plan, first: RecordRefused, now_ms: int) -> None:
        """Some record is refused for good: the others are stored, its source becomes a dead letter."""
        logger().warning("the broker refuses a record", action="record-refused", error=str(first))
        for message, source in zip(plan.messages, plan.sources, strict=True):
            try:
                await self.publisher.publish([message])
            except RecordRefused as error:
                letter = _letter_of(source, "refused-by-broker", str(error), now_ms, keep=False)
                await self.publisher.publish([letter])

    async def forget(self, older_than_ms: int) -> None:
        """Write tombstones for what was seen before this moment, at most ``SWEEP_MAX`` at a time."""
        old: list[tuple[bytes, int]] = []
        for key, value in self.memory.items():
            if len(old) >= SWEEP_MAX:
                break
            if dedup.seen_at_ms(value) < older_than_ms:
                old.append((key, partition_for(key, self.router.partitions)))
        await self.publisher.publish([Message(self.changelog, key, None, partition=home) for key, home in old])
        for key, _ in old:
            self.memory.pop(key, None)


async def run(settings: StreamSettings) -> None:
    """Run intake until SIGTERM or SIGINT. Raises SystemExit(1) where a handoff could not be kept."""
    app = faust_app.create_app(topics.INTAKE_APP, settings.kafka, datadir=settings.data_dir)
    table = faust_app.create_table(app, topics.SEEN_TABLE, settings.command_partitions)
    async with Publisher(settings.kafka) as publisher:
        intake = Intake(
            Router(tuple(settings.lane_table()), settings.command_partitions),
            table.data.data,
            publisher,
            topics.changelog_topic(topics.INTAKE_APP, topics.SEEN_TABLE),
        )

        async def agent(stream: Any) -> None:
            async for events in stream.noack().take_events(BATCH_MAX, within=BATCH_WITHIN_S):
                try:
                    await intake.handle([_record(event.message) for event in events])
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # nothing may leave the loop: the process ends, the offsets stay
                    faust_app.crash(app, error)
                    return
                for event in events:
                    faust_app.ack(event)

        app.agent(faust_app.topic(app, topics.COMMANDS), name="intake", isolated_partitions=True)(agent)

        async def sweep() -> None:
            while True:
                await asyncio.sleep(SWEEP_S)
                try:
                    await intake.forget(time.time_ns() // 1_000_000 - int(settings.dedup_window_s * 1000))
                except Exception as error:  # noqa: BLE001 - whatever it is, the next sweep tries again
                    logger().warning("the sweep failed", action="sweep-failed", error=type(error).__name__)

        def health() -> dict[str, Any]:
            return {"ready": not app.missing, "missing": app.missing}

        async with admin_server(settings.admin_host, settings.admin_port, health):
            sweeping = asyncio.create_task(sweep())
            try:
                await faust_app.serve(app)
            finally:
                sweeping.cancel()


def _record(message: Any) -> Record:
    headers = message.headers
    pairs = headers.items() if isinstance(headers, dict) else headers or ()
    return Record(
        message.partition,
        message.offset,
        int(message.timestamp * 1000) if message.timestamp else 0,
        message.value or b"",
        tuple((str(name), value) for name, value in pairs),
    )
