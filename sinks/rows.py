"""Records to rows. Pure: decodes a batch of one partition into the arrays that the SQL takes.

An event that no row can hold is refused. A dead letter never is: what does not fit is cut or left out.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from schemas import codec, topics
from schemas.records import DeadLetter, PaymentEvent

UNDECODABLE: Final = "undecodable"
REFUSED: Final = "refused-by-database"
WORDS: Final = (9, 10, 11, 13)
"""Columns of a payment's row that some events leave empty: customer_id, description, metadata, expires_at."""
_VERSION: Final = 5
NAME_MAX: Final = 255
"""Longest name of a dead letter that is kept, in characters; names stand in indexes, which have a limit."""
DETAIL_MAX: Final = 2000

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Unstorable(ValueError):
    """A record whose row PostgreSQL would refuse; the message names no content of it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as Kafka gave it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that has no row of its own kind, and why; with the event, where it could be read."""

    record: Record
    reason: str
    detail: str
    event: PaymentEvent | None = None


@dataclass(slots=True)
class Batch:
    """Rows of one partition's records, and what of them is refused."""

    topic: str
    partition: int
    next_offset: int
    payments: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    letters: list[tuple[Any, ...]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def batch(records: Sequence[Record]) -> Batch:
    """The rows of these records, all of one partition, in offset order; of a payment, the highest version."""
    found = nothing(records[-1])
    newest: dict[uuid.UUID, tuple[Any, ...]] = {}
    for record in records:
        if record.topic == topics.DEAD_LETTER:
            _add_letter(found, record)
            continue
        event: PaymentEvent | None = None
        try:
            event = codec.decode(record.value, PaymentEvent)
            payment_id = _uuid(event.payment_id)
            row, payment = _event(payment_id, event, record), _payment(payment_id, event)
        except codec.DecodeError as error:
            found.refused.append(Refusal(record, UNDECODABLE, str(error)))
        except Unstorable as error:
            found.refused.append(Refusal(record, REFUSED, str(error), event))
        else:
            found.events.append(row)
            newest[payment_id] = newer(newest.get(payment_id, payment), payment)
    found.payments = list(newest.values())
    return found


def newer(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of two rows of a payment the one of the higher version, with the words that only one of them may hold.

    A cancel's event knows none of them, and must not empty what the create said.
    """
    newest, older = (other, one) if other[_VERSION] > one[_VERSION] else (one, other)
    if says(newest) or not says(older):
        return newest
    return tuple(older[place] if place in WORDS else value for place, value in enumerate(newest))


def says(row: Sequence[Any]) -> bool:
    """Whether any of WORDS is there: then all are, as the create said them."""
    return any(row[place] not in (None, "{}") for place in WORDS)


def nothing(record: Record) -> Batch:
    """No rows: only that the partition is done up to this record."""
    return Batch(record.topic, record.partition, record.offset + 1)


def refused(record: Record, detail: str) -> Batch:
    """What is written for a record whose own row PostgreSQL refused: of a dead letter, its origin and sizes."""
    found = nothing(record)
    if record.topic == topics.DEAD_LETTER:
        found.letters.append(_letter(_stand_in(record, REFUSED, detail), record))
    event = None if found.letters else codec.decode(record.value, PaymentEvent)
    found.refused.append(Refusal(record, REFUSED, detail, event))
    return found


def _add_letter(found: Batch, record: Record) -> None:
    try:
        letter = codec.decode(record.value, DeadLetter)
    except codec.DecodeError as error:
        letter = _stand_in(record, UNDECODABLE, str(error))
        found.refused.append(Refusal(record, UNDECODABLE, str(error)))
    found.letters.append(_letter(letter, record))


def _stand_in(record: Record, reason: str, detail: str) -> DeadLetter:
    """A dead letter instead of one that cannot be kept: under its origin, or where that is unknown, its own place."""
    blank = DeadLetter(
        reason=reason,
        detail=detail,
        stage="sink",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        original=b"",
        original_size=len(record.value),
        original_sha256=hashlib.sha256(record.value).hexdigest(),
        at_ms=record.timestamp_ms,
    )
    try:
        letter = codec.decode(record.value, DeadLetter)
    except codec.DecodeError:
        return blank
    return replace(
        blank,
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        original_size=letter.original_size,
        original_sha256=letter.original_sha256,
    )


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise Unstorable("payment_id is not a UUID") from None


def _moment(epoch_ms: int) -> dt.datetime:
    try:
        return _EPOCH + dt.timedelta(milliseconds=epoch_ms)
    except OverflowError:
        raise Unstorable("a time is not between the years 1 and 9999") from None


def _clean(text: str | None, longest: int | None = None) -> str | None:
    """The text without NUL, the one character that PostgreSQL does not store; not longer than ``longest``."""
    return text if text is None else text.replace("\0", "\ufffd")[:longest]


def _payment(payment_id: uuid.UUID, event: PaymentEvent) -> tuple[Any, ...]:
    """The row. What a merchant says is stored as it is or refused, what a provider said is stored in any case."""
    metadata = event.metadata
    texts = (
        event.merchant_id, event.idempotency_key, event.fingerprint, event.currency, event.payment_method,
        event.customer_id or "", event.description or "", event.lane, *metadata, *metadata.values(),
    )  # fmt: skip
    if "\0" in "".join(texts):
        raise Unstorable("a text holds a NUL character")
    return (
        payment_id,
        event.merchant_id,
        event.idempotency_key,
        event.fingerprint,
        event.state.value,
        event.version,
        event.amount_minor,
        event.currency,
        event.payment_method,
        event.customer_id,
        event.description,
        orjson.dumps(metadata).decode(),
        event.lane,
        None if event.expires_at_ms is None else _moment(event.expires_at_ms),
        event.attempt,
        _clean(event.reason),
        _clean(event.provider_charge_id),
        _moment(event.accepted_at_ms),
        _moment(event.at_ms),
        None if event.retry_at_ms is None else _moment(event.retry_at_ms),
        event.level,
    )


def _event(payment_id: uuid.UUID, event: PaymentEvent, record: Record) -> tuple[Any, ...]:
    return (
        payment_id,
        event.version,
        event.type.value,
        event.state.value,
        event.attempt,
        _clean(event.call),
        _clean(event.outcome),
        _clean(event.reason),
        _clean(event.detail),
        _clean(event.provider_charge_id),
        _clean(event.replay_id),
        event.lane,
        _moment(event.at_ms),
        event.sent_at_us,
        record.topic,
        record.partition,
        record.offset,
        record.traceparent,
    )


def _letter(found: DeadLetter, record: Record) -> tuple[Any, ...]:
    try:
        at = _moment(found.at_ms)
    except Unstorable:
        at = _moment(record.timestamp_ms)
    return (
        _clean(found.topic, NAME_MAX),
        found.partition,
        found.offset,
        _clean(found.reason, NAME_MAX),
        _clean(found.detail, DETAIL_MAX),
        _clean(found.stage, NAME_MAX),
        _clean(found.payment_id, NAME_MAX),
        _clean(found.merchant_id, NAME_MAX),
        _clean(found.lane, NAME_MAX),
        found.attempts,
        found.original,
        found.original_size,
        _clean(found.original_sha256, NAME_MAX),
        at,
    )
