"""Records to rows. Pure: decodes a batch of one partition into the arrays that the SQL takes."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from schemas import codec, topics
from schemas.records import DeadLetter, PaymentEvent

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as Kafka gave it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes


@dataclass(slots=True)
class Batch:
    """Rows of one partition's records; what cannot become a row stands in ``refused`` with the reason."""

    topic: str
    partition: int
    next_offset: int
    payments: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    letters: list[tuple[Any, ...]] = field(default_factory=list)
    refused: list[tuple[Record, str, str]] = field(default_factory=list)


def batch(records: Sequence[Record]) -> Batch:
    """The rows of these records, all of one partition, in offset order."""
    last = records[-1]
    found = Batch(last.topic, last.partition, last.offset + 1)
    newest: dict[uuid.UUID, PaymentEvent] = {}
    for record in records:
        try:
            if record.topic == topics.DEAD_LETTER:
                found.letters.append(_letter(codec.decode(record.value, DeadLetter)))
                continue
            event = codec.decode(record.value, PaymentEvent)
            payment_id = uuid.UUID(event.payment_id)
            row = _event(payment_id, event, record)
            if payment_id not in newest or event.version > newest[payment_id].version:
                _payment(payment_id, event)  # a moment out of range shows here, while the record is known
                newest[payment_id] = event
            found.events.append(row)
        except codec.DecodeError as error:
            found.refused.append((record, "undecodable", str(error)))
        except (ValueError, OverflowError) as error:
            found.refused.append((record, "refused-by-database", type(error).__name__))
    found.payments = [_payment(payment_id, event) for payment_id, event in newest.items()]
    return found


def _moment(epoch_ms: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(milliseconds=epoch_ms)


def _text(value: str | None) -> str | None:
    """PostgreSQL's text takes every character but NUL, which no valid command holds."""
    return value.replace("\0", "\ufffd") if value is not None and "\0" in value else value


def _payment(payment_id: uuid.UUID, event: PaymentEvent) -> tuple[Any, ...]:
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
        orjson.dumps(event.metadata).decode(),
        event.lane,
        None if event.expires_at_ms is None else _moment(event.expires_at_ms),
        event.attempt,
        event.reason,
        event.provider_charge_id,
        _moment(event.accepted_at_ms),
        _moment(event.at_ms),
    )


def _event(payment_id: uuid.UUID, event: PaymentEvent, record: Record) -> tuple[Any, ...]:
    return (
        payment_id,
        event.version,
        event.type.value,
        event.state.value,
        event.attempt,
        event.call,
        event.outcome,
        event.reason,
        event.detail,
        event.provider_charge_id,
        event.replay_id,
        event.lane,
        _moment(event.at_ms),
        event.sent_at_us,
        record.topic,
        record.partition,
        record.offset,
    )


def _letter(found: DeadLetter) -> tuple[Any, ...]:
    return (
        _text(found.topic),
        found.partition,
        found.offset,
        _text(found.reason),
        _text(found.detail),
        _text(found.stage),
        _text(found.payment_id),
        _text(found.merchant_id),
        _text(found.lane),
        found.attempts,
        found.original,
        found.original_size,
        _text(found.original_sha256),
        _moment(found.at_ms),
    )
