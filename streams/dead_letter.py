"""Dead letters: a record that waits for a person, with where it came from, why, and its bytes.

Pure. One letter per origin ``(topic, partition, offset)``; writing it twice is harmless, readers key on the origin.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from typing import Final

from ops.kafka.message import Message
from schemas import codec, topics
from schemas.card_number import holds_card_number, key_holds_card_number, may_hold_card_number
from schemas.records import DeadLetter

MAX_DETAIL: Final = 500
MAX_ORIGINAL: Final = 64 * 1024
"""Largest original value that is carried whole, in bytes."""
KEPT_OF_LARGER: Final = 4 * 1024
"""How much of a larger one is kept, in bytes; its size and hash tell the rest."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_LONG_NUMBER = re.compile(r"\d(?:[ \-\u2010-\u2015\u00a0.]?\d){12,}")


def _safe(text: str) -> str:
    """One line of at most ``MAX_DETAIL`` characters, with no number long enough to be a card's."""
    return _LONG_NUMBER.sub("[number]", _CONTROL.sub(" ", text))[:MAX_DETAIL]


def _holds_card_number(original: bytes) -> bool:
    """Field by field where it is a record: side by side, the digits of two fields may look like a card's."""
    try:
        fields = asdict(codec.decode_any(original))
    except codec.DecodeError:
        return may_hold_card_number(original)
    if key_holds_card_number(fields.pop("idempotency_key", None) or ""):
        return True
    texts = [value for value in fields.values() if isinstance(value, str)]
    texts += [text for item in (fields.get("metadata") or {}).items() for text in item]
    return any(holds_card_number(text) for text in texts)


def letter(  # noqa: PLR0913 - a letter states its whole origin
    *,
    reason: str,
    detail: str,
    stage: str,
    topic: str,
    partition: int,
    offset: int,
    original: bytes,
    at_ms: int,
    payment_id: str | None = None,
    merchant_id: str | None = None,
    lane: str | None = None,
    attempts: int = 0,
    keep_original: bool = True,
    cut: bool = False,
) -> DeadLetter:
    """The letter of one record. ``keep_original=False`` drops a value that must not be stored (a card number in it).

    A value that seems to hold a card number is dropped whatever the reason is. The detail is cut to 500 characters and
    masked; an original over 64 KiB, or any with ``cut``, to its first 4 KiB;
    size and hash stay true.
    """
    kept = original if len(original) <= MAX_ORIGINAL and not cut else original[:KEPT_OF_LARGER]
    if not keep_original or _holds_card_number(original):
        kept = b""
    return DeadLetter(
        reason=reason,
        detail=_safe(detail),
        stage=stage,
        topic=topic,
        partition=partition,
        offset=offset,
        payment_id=payment_id,
        merchant_id=merchant_id,
        lane=lane,
        attempts=attempts,
        original=kept,
        original_size=len(original),
        original_sha256=hashlib.sha256(original).hexdigest(),
        at_ms=at_ms,
    )


def origin(found: DeadLetter) -> str:
    """``topic/partition/offset`` of the record that was given up."""
    return f"{found.topic}/{found.partition}/{found.offset}"


def message(found: DeadLetter, *, key: bytes | None = None) -> Message:
    """The letter as a record of the dead-letter topic, keyed by its origin, or by ``key`` (a payment that waits).

    The ``__dlq.errors.*`` headers are those other tools read; ours are single-valued and safe to filter by.
    """
    first = origin(found)
    headers = {
        "__dlq.errors.topic": found.topic,
        "__dlq.errors.partition": str(found.partition),
        "__dlq.errors.offset": str(found.offset),
        "__dlq.errors.stage": found.stage,
        "__dlq.errors.reason": found.reason,
        "__dlq.errors.exception.message": found.detail,
        "kifiya-first-origin": first,
        "kifiya-last-error": found.reason,
        "kifiya-attempts": str(found.attempts),
    }
    return Message(
        topic=topics.DEAD_LETTER,
        key=key if key is not None else first.encode(),
        value=codec.encode(found),
        headers=tuple((name, text.encode()) for name, text in headers.items()),
    )
