"""Routing: what each command leads to. Pure: records and the memory of keys seen in, a plan out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ops import trace
from ops.kafka.clients import Message, partition_for
from schemas import codec, command, seal, topics
from schemas.command import InvalidCommand
from schemas.records import CommandType, EventType, PaymentCommand, PaymentEvent, PaymentTask, State, TaskKind
from schemas.strict_json import InvalidJson, loads
from streams import dead_letter, dedup
from streams.admission import NOT_ADMITTED, OPEN, Admission
from streams.dedup import Seen, Verdict
from streams.share import Share

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
    """What a batch leads to: records to publish, and what to remember once they are stored. Keys are payment ids."""

    messages: list[Message] = field(default_factory=list)
    sources: list[Record] = field(default_factory=list)
    remember: dict[bytes, bytes] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    share: Share | None = None

    def add(self, record: Record, *messages: Message) -> None:
        """Publish these because of that record, as a part of its trace."""
        context = trace.of(record.headers)
        self.messages += [trace.marked(message, context) for message in messages] if context else messages
        self.sources += [record] * len(messages)


@dataclass(frozen=True, slots=True)
class Router:
    """The pure part: records and memory in, a plan out."""

    lanes: tuple[str, ...]
    partitions: int
    admission: Admission = OPEN
    known: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """The lanes as a set."""
        object.__setattr__(self, "known", frozenset(self.lanes))

    def plan(
        self, records: Iterable[Record], memory: Mapping[bytes, bytes], now_ms: int, share: Share | None = None
    ) -> Plan:
        """Decide on each record in order; later ones see what earlier ones of the batch will leave in memory.

        ``share`` says in which level a new payment waits, and counts it; without it all wait in the first.
        """
        plan = Plan(share=share)
        for record in records:
            try:
                self._route(record, memory, plan, now_ms)
            except InvalidCommand as error:
                keep = error.code != "card-number"
                self._letter(plan, record, error.code, f"{error.field}: {error.detail}", now_ms, keep=keep)
            except (codec.DecodeError, InvalidJson) as error:
                self._letter(plan, record, "undecodable", str(error), now_ms)
        return plan

    def _route(self, record: Record, memory: Mapping[bytes, bytes], plan: Plan, now_ms: int) -> None:
        asked = self._command(record)
        assert asked.payment_id is not None  # noqa: S101 - schemas.command.check sets it
        if asked.merchant_id is not None:
            refusal = self._refusal(asked.merchant_id, record, now_ms)
            if refusal is not None:
                self._letter(plan, record, NOT_ADMITTED, refusal, now_ms, asked=asked)
                return
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
        lanes = self.known
        if record.value[:1] == b"{":
            return command.from_json(loads(record.value), lanes=lanes, accepted_at_ms=record.timestamp_ms)
        return command.check(codec.decode(record.value, PaymentCommand), lanes=lanes)

    def _refusal(self, merchant_id: str, record: Record, now_ms: int) -> str | None:
        return self.admission.refusal(merchant_id, record.value, record.headers, now_ms)

    def _move_home(self, record: Record, key: bytes, home: int, plan: Plan, now_ms: int) -> None:
        """Once only: a record that is still not at home after its move would travel for ever."""
        if any(name == REHOMED for name, _ in record.headers):
            self._letter(plan, record, "not-home", "the record was moved once and is still not at home", now_ms)
            return
        origin = (REHOMED, f"{record.partition}/{record.offset}".encode())
        plan.add(record, Message(topics.COMMANDS, key, record.value, (*record.headers, origin), home))
        plan.decisions.append("rehomed")

    def _create(self, record: Record, asked: PaymentCommand, seen: Seen | None, plan: Plan, now_ms: int) -> None:
        fingerprint = command.fingerprint(asked, stored=seen.fingerprint if seen else None)
        verdict = dedup.decide(seen, partition=record.partition, offset=record.offset, fingerprint=fingerprint)
        if verdict is not Verdict.CONFLICT:  # that is a dead letter, which counts itself
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
        key, level = task.payment_id.encode(), _level(task, plan.share)
        queue = topics.queue_topic(task.lane, level, topics.queue_number(level, task.merchant_id))
        plan.add(
            record,
            Message(queue, key, codec.encode(task)),
            Message(topics.EVENTS, key, codec.encode(_pending(task, level))),
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
        if seen is None or self._of_another(record, asked, seen, now_ms):
            # One letter for both: whether somebody else's payment exists is not told.
            self._letter(plan, record, "unknown-payment", "no such payment to cancel", now_ms, asked=asked)
            return
        plan.decisions.append("cancel")
        task = _task(replace(asked, customer_id=None, description=None, metadata={}), seen, kind=TaskKind.CANCEL)
        plan.add(record, Message(topics.cancel_topic(seen.lane), task.payment_id.encode(), codec.encode(task)))

    def _of_another(self, record: Record, asked: PaymentCommand, seen: Seen, now_ms: int) -> bool:
        """Whether the payment belongs to a merchant for whom this cancel does not speak."""
        if asked.merchant_id is not None:
            return asked.merchant_id != seen.merchant_id
        return self._refusal(seen.merchant_id, record, now_ms) is not None

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
        plan.decisions.append("dead-letter")
        plan.letters.append(reason)
        plan.add(record, letter_of(record, reason, detail, now_ms, asked=asked, keep=keep))


def _task(asked: PaymentCommand, seen: Seen, *, kind: TaskKind = TaskKind.CREATE) -> PaymentTask:
    """The payment's task; what identifies and prices it comes from memory, the rest from the command."""
    asked = command.normalised(asked)
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


def _level(task: PaymentTask, share: Share | None) -> int:
    """The level of the queue that a task waits in, by what its merchant has waiting.

    A replay may choose another one than the first time: the task then stands in two, and dispatch, for which both are
    of one partition and one payment, calls for the first and drops the second.
    """
    return share.place(task.lane, task.merchant_id) if share else 0


def _pending(task: PaymentTask, level: int) -> PaymentEvent:
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
        level=level,
    )


def letter_of(  # noqa: PLR0913 - a letter says it all
    record: Record,
    reason: str,
    detail: str,
    now_ms: int,
    *,
    asked: PaymentCommand | None = None,
    keep: bool = True,
    cut: bool = False,
) -> Message:
    """The dead letter of a command, keyed by its origin. ``keep=False`` drops its value, ``cut`` keeps its start.

    It has the command's seal: so a replay is known for what the original was, and a forged one gains nothing by it.
    """
    found = dead_letter.message(
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
            cut=cut,
        )
    )
    sealed = seal.of(record.headers)
    return found if sealed is None else found._replace(headers=(*found.headers, (seal.HEADER, sealed)))
