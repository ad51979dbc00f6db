"""The records that travel between the stages, as frozen dataclasses.

Field names, order and units are those of ``schemas/avro/*.avsc``; times are epoch milliseconds (UTC), money is integer
minor units with its ISO 4217 currency.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class CommandType(StrEnum):
    """What a command asks for."""

    CREATE = "create"
    CANCEL = "cancel"


class TaskKind(StrEnum):
    """What a lane is asked to do."""

    CREATE = "create"
    CANCEL = "cancel"


class State(StrEnum):
    """States of a payment; ``FINAL`` lists those that are never left but by an audited settlement."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    UNKNOWN = "UNKNOWN"
    REVIEW = "REVIEW"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class EventType(StrEnum):
    """What happened; a closed set."""

    STATE_CHANGED = "state_changed"
    CALL_INTENDED = "call_intended"
    CALL_FINISHED = "call_finished"
    CALL_NOT_SENT = "call_not_sent"
    CANCEL_REFUSED = "cancel_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentCommand:
    """What a merchant asks for. On a create all business fields are set, on a cancel only what names the payment."""

    type: CommandType
    payment_id: str | None = None
    merchant_id: str | None = None
    idempotency_key: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    payment_method: str | None = None
    customer_id: str | None = None
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    lane: str | None = None
    expires_at_ms: int | None = None
    accepted_at_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentTask:
    """One piece of work for a lane. ``attempt`` is the number of the wire call it asks for, from 1."""

    kind: TaskKind
    payment_id: str
    merchant_id: str
    idempotency_key: str
    fingerprint: str
    amount_minor: int
    currency: str
    payment_method: str
    customer_id: str | None = None
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    lane: str
    expires_at_ms: int | None = None
    accepted_at_ms: int
    attempt: int = 1
    not_before_ms: int = 0
    replay_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEvent:
    """One change of a payment or one step of a provider call. Unique on ``(payment_id, version)``."""

    type: EventType
    version: int
    state: State
    payment_id: str
    merchant_id: str
    idempotency_key: str
    fingerprint: str
    amount_minor: int
    currency: str
    payment_method: str
    customer_id: str | None = None
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    lane: str
    expires_at_ms: int | None = None
    accepted_at_ms: int
    attempt: int = 0
    call: str | None = None
    outcome: str | None = None
    reason: str | None = None
    detail: str | None = None
    provider_charge_id: str | None = None
    replay_id: str | None = None
    at_ms: int
    sent_at_us: int | None = None
    retry_at_ms: int | None = None
    level: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentResult:
    """The final state of a payment; the topic is compacted by ``payment_id``."""

    status: State
    version: int
    payment_id: str
    merchant_id: str
    idempotency_key: str
    amount_minor: int
    currency: str
    lane: str
    provider_charge_id: str | None = None
    reason: str | None = None
    attempts: int
    accepted_at_ms: int
    final_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that waits for a person. Unique on its origin ``(topic, partition, offset)``."""

    reason: str
    detail: str
    stage: str
    topic: str
    partition: int
    offset: int
    payment_id: str | None = None
    merchant_id: str | None = None
    lane: str | None = None
    attempts: int = 0
    original: bytes
    original_size: int
    original_sha256: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterBeat:
    """A dispatch worker's word about who grants its lane's permits; see ``streams.limiter.authority``."""

    lane: str
    worker: str
    beat: int
    epoch: int
    settled: bool
    redis: bool
    postgres: bool


Record = PaymentCommand | PaymentTask | PaymentEvent | PaymentResult | DeadLetter | LimiterBeat
