"""The payment's state machine: one ledger entry per payment, pure transitions, and what each entry publishes.

A transition takes an entry and returns the next one with ``version`` one higher; :func:`outputs` derives from an entry
all that has to be published for it, so a crash after the ledger write is healed by publishing again from the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import orjson

from schemas.records import FINAL, EventType, PaymentEvent, PaymentResult, PaymentTask, State
from streams.providers.port import Outcome, OutcomeKind


class Call(StrEnum):
    """The two requests a provider knows."""

    CHARGE = "charge"
    STATUS = "status"


class Step(StrEnum):
    """What dispatch does with a task; a closed set."""

    CHARGE = "charge"
    STATUS = "status"
    PUBLISH_AGAIN = "publish-again"
    INTERRUPTED = "interrupted"
    EXPIRE = "expire"
    REVIEW = "review"
    CONFLICT = "conflict"
    DROP = "drop"


CALLS: Final = frozenset({Step.CHARGE, Step.STATUS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A payment in the ledger, as its last event left it.

    ``attempt`` counts wire calls begun; ``budget_from`` is the count at which a person's replay began anew;
    ``retry_tier`` is set while a retry is scheduled, ``not_before_ms`` until its call begins; ``cancel_origin`` names
    the last cancel that was answered, ``review_origin`` the record whose handling led to a review
    (``topic/partition/offset``).
    """

    state: State
    version: int
    attempt: int
    fingerprint: str
    event: EventType
    at_ms: int
    first_called_at_ms: int | None = None
    may_have_charged: bool = False
    budget_from: int = 0
    call: Call | None = None
    outcome: OutcomeKind | None = None
    reason: str | None = None
    detail: str | None = None
    provider_charge_id: str | None = None
    replay_id: str | None = None
    sent_at_us: int | None = None
    retry_tier: str | None = None
    not_before_ms: int = 0
    cancel_origin: str | None = None
    review_origin: str | None = None

    @property
    def final(self) -> bool:
        """Whether only an audited settlement may change this payment."""
        return self.state in FINAL


_ENUMS: Final = {"state": State, "event": EventType, "call": Call, "outcome": OutcomeKind}


def encode(entry: Entry) -> bytes:
    """The entry as it stands in the ledger's changelog."""
    fields = {name: getattr(entry, name) for name in Entry.__slots__}
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})


def decode(value: bytes) -> Entry:
    """The inverse of :func:`encode`; fields that later versions add are left out."""
    raw = orjson.loads(value)
    fields = {name: raw[name] for name in Entry.__slots__ if name in raw}
    for name, enum in _ENUMS.items():
        if name in fields:
            fields[name] = enum(fields[name])
    return Entry(**fields)


def forgettable(value: bytes, older_than_ms: int) -> bool:
    """Whether this changelog value is a final entry that was last changed before this moment."""
    raw = orjson.loads(value)
    return raw["at_ms"] < older_than_ms and State(raw["state"]) in FINAL


def winner(old: bytes | None, new: bytes) -> bytes:
    """Of two changelog values of one payment the one that counts: highest (final, version), the later one on a tie.

    A zombie's late write can follow the new owner's, so the last one is not always right. A final entry that beats a
    later version gets a version above it: consumers have seen that one, and keep the highest.
    """
    if not old:
        return new
    before, after = decode(old), decode(new)
    if before.final != after.final:
        final, other = (before, after) if before.final else (after, before)
        if other.version >= final.version:
            return encode(replace(final, version=other.version + 1))
        return old if before.final else new
    return old if before.version > after.version else new


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a lane allows. ``key_lifetime_ms`` is how long its provider honours an idempotency key; None: no keys."""

    max_attempts: int = 8
    key_lifetime_ms: int | None = 24 * 3600 * 1000


def fresh(task: PaymentTask) -> Entry:
    """The entry that intake's PENDING event (version 1) stands for."""
    return Entry(
        state=State.PENDING,
        version=1,
        attempt=0,
        fingerprint=task.fingerprint,
        event=EventType.STATE_CHANGED,
        at_ms=task.accepted_at_ms,
    )


def decide(task: PaymentTask, entry: Entry | None, now_ms: int, rules: Rules) -> Step:
    """What to do with a create task, given the ledger. Pure; ``now_ms`` is wall-clock epoch milliseconds."""
    if entry is None:
        entry = fresh(task)
    if entry.fingerprint != task.fingerprint:
        return Step.CONFLICT
    if task.attempt == entry.attempt:
        return Step.INTERRUPTED if entry.state is State.PROCESSING else Step.PUBLISH_AGAIN
    if task.attempt != entry.attempt + 1:
        return Step.DROP
    replayed = task.replay_id is not None and task.replay_id != entry.replay_id
    if entry.final or (entry.state is State.REVIEW and not replayed):
        return Step.PUBLISH_AGAIN  # it may have ended without a call, and the worker may have died before it said so
    if entry.first_called_at_ms is None:
        return Step.EXPIRE if expired(task, entry, now_ms) else Step.CHARGE
    return _next_call(entry, now_ms, rules, replayed=replayed)


def expired(task: PaymentTask, entry: Entry, now_ms: int) -> bool:
    """Whether its time is over and it was never sent; once it was, only the provider's answer or a person ends it."""
    return entry.first_called_at_ms is None and task.expires_at_ms is not None and task.expires_at_ms <= now_ms


def _next_call(entry: Entry, now_ms: int, rules: Rules, *, replayed: bool) -> Step:
    """Charge again, or ask first? Once a request may have landed, only the same key may follow, inside its lifetime."""
    if replayed or entry.outcome in (OutcomeKind.UNKNOWN, None):
        return Step.STATUS
    if entry.call is Call.STATUS and entry.outcome is OutcomeKind.RETRYABLE:
        return Step.STATUS
    if not entry.may_have_charged:
        return Step.CHARGE
    if rules.key_lifetime_ms is None or now_ms - (entry.first_called_at_ms or 0) >= rules.key_lifetime_ms:
        return Step.REVIEW if entry.outcome is OutcomeKind.ABSENT else Step.STATUS
    return Step.CHARGE


def intend(entry: Entry, task: PaymentTask, call: Call, now_ms: int) -> Entry:
    """PROCESSING: the call is about to be made. Durable before the first byte is written."""
    replayed = task.replay_id is not None and task.replay_id != entry.replay_id
    return replace(
        entry,
        state=State.PROCESSING,
        version=entry.version + 1,
        attempt=task.attempt,
        event=EventType.CALL_INTENDED,
        at_ms=now_ms,
        first_called_at_ms=entry.first_called_at_ms or now_ms,
        budget_from=entry.attempt if replayed else entry.budget_from,
        call=call,
        outcome=None,
        reason=None,
        detail=None,
        sent_at_us=None,
        replay_id=task.replay_id or entry.replay_id,
        retry_tier=None,
        not_before_ms=0,
        review_origin=None,
    )


def not_sent(before: Entry, intended: Entry, now_ms: int) -> Entry:
    """The permit came too late and nothing was written: as before the intent, but for the version.

    No retry is scheduled: the task that was to make the call is in hand still, and would have a twin. Where that one is
    a retry, the entry goes on saying since when it is due.
    """
    return replace(
        before,
        version=intended.version + 1,
        event=EventType.CALL_NOT_SENT,
        at_ms=now_ms,
        call=intended.call,
        retry_tier=None,
    )


@dataclass(frozen=True, slots=True)
class Retry:
    """When a retry may run: the tier's name and the earliest moment, epoch milliseconds."""

    tier: str
    not_before_ms: int


def settle(  # noqa: PLR0913 - all that an outcome consists of
    entry: Entry,
    outcome: Outcome,
    *,
    before: Entry | None,
    retry: Retry,
    now_ms: int,
    rules: Rules,
    sent_at_us: int | None = None,
) -> Entry:
    """The provider answered, or did not. ``entry`` is the intended one, ``before`` the one it replaced.

    ``retry`` is used only where the outcome leaves the payment open and its budget of attempts is not used up.
    """
    nxt = replace(
        entry,
        version=entry.version + 1,
        event=EventType.CALL_FINISHED,
        at_ms=now_ms,
        outcome=outcome.kind,
        reason=outcome.reason,
        detail=outcome.detail,
        provider_charge_id=outcome.provider_charge_id or entry.provider_charge_id,
        may_have_charged=entry.may_have_charged or (entry.call is Call.CHARGE and outcome.sent),
        sent_at_us=sent_at_us,
    )
    if not outcome.sent and before is not None and before.first_called_at_ms is None:
        nxt = replace(nxt, first_called_at_ms=None)
    match outcome.kind:
        case OutcomeKind.APPROVED:
            return replace(nxt, state=State.COMPLETED)
        case OutcomeKind.DECLINED:
            return replace(nxt, state=State.FAILED, reason=outcome.reason or "declined")
        case OutcomeKind.REJECTED:
            return replace(nxt, state=State.REVIEW, reason=outcome.reason or "rejected")
        case OutcomeKind.RETRYABLE | OutcomeKind.UNKNOWN | OutcomeKind.ABSENT:
            if nxt.attempt - nxt.budget_from >= rules.max_attempts:
                return replace(nxt, state=State.REVIEW, reason="attempts-exhausted", detail=_why(outcome))
            unsure = outcome.kind is OutcomeKind.UNKNOWN or (
                entry.call is Call.STATUS and outcome.kind is OutcomeKind.RETRYABLE
            )
            return replace(
                nxt,
                state=State.UNKNOWN if unsure else State.PENDING,
                retry_tier=retry.tier,
                not_before_ms=retry.not_before_ms,
            )


def _why(outcome: Outcome) -> str:
    return f"last outcome: {outcome.kind}" + (f" ({outcome.reason})" if outcome.reason else "")


INTERRUPTED: Final = Outcome(
    kind=OutcomeKind.UNKNOWN,
    reason="interrupted",
    detail="the worker stopped between the call's intent and its outcome",
    provider_charge_id=None,
    retry_after_s=None,
    sent=True,
)
"""The outcome of a call whose worker died: it may or may not have been sent."""


def expire(entry: Entry, now_ms: int) -> Entry:
    """FAILED ``expired``: its time was over before it was ever sent."""
    return _end(entry, State.FAILED, "expired", now_ms)


def review(entry: Entry, reason: str, now_ms: int, *, replay_id: str | None = None) -> Entry:
    """REVIEW: waits for a person."""
    return replace(_end(entry, State.REVIEW, reason, now_ms), replay_id=replay_id or entry.replay_id)


def _end(entry: Entry, state: State, reason: str, now_ms: int) -> Entry:
    return replace(
        entry,
        state=state,
        version=entry.version + 1,
        event=EventType.STATE_CHANGED,
        reason=reason,
        detail=None,
        at_ms=now_ms,
        call=None,
        sent_at_us=None,
        retry_tier=None,
        not_before_ms=0,
    )


def cancel(entry: Entry, origin: str, now_ms: int) -> Entry:
    """CANCELLED while PENDING and never sent; else the same state with an event that says why not.

    ``origin`` is ``topic/partition/offset`` of the cancel. The same cancel again returns the entry unchanged, and so
    does any other of what is cancelled: it has what it asks for.
    """
    if entry.cancel_origin == origin or entry.state is State.CANCELLED:
        return entry
    if entry.state is State.PENDING and entry.first_called_at_ms is None:
        return replace(_end(entry, State.CANCELLED, "cancelled-by-merchant", now_ms), cancel_origin=origin)
    return replace(
        entry,
        version=entry.version + 1,
        event=EventType.CANCEL_REFUSED,
        at_ms=now_ms,
        cancel_origin=origin,
    )


def refusal(entry: Entry) -> str:
    """Why a cancel was refused, as a reason code."""
    return f"already-{entry.state.value.lower()}" if entry.final else "already-sent"


def event_of(task: PaymentTask, entry: Entry) -> PaymentEvent:
    """The event that the entry's last change stands for."""
    refused = entry.event is EventType.CANCEL_REFUSED
    called = entry.event in (EventType.CALL_INTENDED, EventType.CALL_FINISHED, EventType.CALL_NOT_SENT)
    return PaymentEvent(
        type=entry.event,
        version=entry.version,
        state=entry.state,
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
        attempt=entry.attempt,
        call=entry.call.value if called and entry.call else None,
        outcome=entry.outcome.value if entry.event is EventType.CALL_FINISHED and entry.outcome else None,
        reason=refusal(entry) if refused else entry.reason,
        detail=entry.detail,
        provider_charge_id=entry.provider_charge_id,
        replay_id=entry.replay_id,
        at_ms=entry.at_ms,
        sent_at_us=entry.sent_at_us if entry.event is EventType.CALL_FINISHED else None,
        retry_at_ms=entry.not_before_ms or None,
    )


def result_of(task: PaymentTask, entry: Entry) -> PaymentResult | None:
    """The final result, where the entry is final."""
    if not entry.final:
        return None
    return PaymentResult(
        status=entry.state,
        version=entry.version,
        payment_id=task.payment_id,
        merchant_id=task.merchant_id,
        idempotency_key=task.idempotency_key,
        amount_minor=task.amount_minor,
        currency=task.currency,
        lane=task.lane,
        provider_charge_id=entry.provider_charge_id,
        reason=entry.reason,
        attempts=entry.attempt,
        accepted_at_ms=task.accepted_at_ms,
        final_at_ms=entry.at_ms,
    )


def retry_of(task: PaymentTask, entry: Entry) -> tuple[str, PaymentTask] | None:
    """The tier and the task of the scheduled retry, where there is one."""
    if entry.retry_tier is None:
        return None
    return entry.retry_tier, replace(
        task, attempt=entry.attempt + 1, not_before_ms=entry.not_before_ms, replay_id=entry.replay_id
    )
