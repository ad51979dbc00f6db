"""Dead letters of the sink: for an event that no row can hold, with where it came from, why, and its bytes. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

from ops.kafka.message import Message
from schemas import codec, topics
from schemas.card_number import holds_card_number, key_holds_card_number, may_hold_card_number
from schemas.records import DeadLetter, PaymentEvent
from sinks.rows import NAME_MAX, Refusal

STAGE: Final = "sink"
MAX_ORIGINAL: Final = 64 * 1024
"""Largest original value that is carried whole, in bytes."""
KEPT_OF_LARGER: Final = 4 * 1024
"""How much of a larger one is kept, in bytes."""


def letter(found: Refusal, at_ms: int, *, cut: bool = False) -> DeadLetter:
    """The letter of one refused event. A value that seems to hold a card number is not carried along."""
    record, event = found.record, found.event
    kept = record.value if len(record.value) <= MAX_ORIGINAL and not cut else record.value[:KEPT_OF_LARGER]
    if _holds_card_number(record.value, event):
        kept = b""
    return DeadLetter(
        reason=found.reason,
        detail=found.detail,
        stage=STAGE,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        payment_id=event.payment_id[:NAME_MAX] if event else None,
        merchant_id=event.merchant_id[:NAME_MAX] if event else None,
        lane=event.lane[:NAME_MAX] if event else None,
        attempts=event.attempt if event else 0,
        original=kept,
        original_size=len(record.value),
        original_sha256=hashlib.sha256(record.value).hexdigest(),
        at_ms=at_ms,
    )


def message(found: Refusal, at_ms: int, *, cut: bool = False) -> Message:
    """The letter as a record of the dead-letter topic, keyed by its origin, with the headers that other tools read."""
    sent = letter(found, at_ms, cut=cut)
    origin = f"{sent.topic}/{sent.partition}/{sent.offset}"
    headers = {
        "__dlq.errors.topic": sent.topic,
        "__dlq.errors.partition": str(sent.partition),
        "__dlq.errors.offset": str(sent.offset),
        "__dlq.errors.stage": sent.stage,
        "__dlq.errors.reason": sent.reason,
        "__dlq.errors.exception.message": sent.detail,
        "kifiya-first-origin": origin,
        "kifiya-last-error": sent.reason,
        "kifiya-attempts": str(sent.attempts),
    }
    return Message(
        topic=topics.DEAD_LETTER,
        key=origin.encode(),
        value=codec.encode(sent),
        headers=tuple((name, text.encode()) for name, text in headers.items()),
    )


def _holds_card_number(value: bytes, event: PaymentEvent | None) -> bool:
    """Field by field where it was read: side by side, the digits of two fields may look like a card's."""
    if event is None:
        return may_hold_card_number(value)
    texts = [
        event.payment_id, event.merchant_id, event.payment_method, event.customer_id,
        event.description, event.reason, event.detail, event.provider_charge_id, event.replay_id,
        *event.metadata, *event.metadata.values(),
    ]  # fmt: skip
    return key_holds_card_number(event.idempotency_key) or any(holds_card_number(text) for text in texts if text)
