"""Dead letters: a whole origin, a masked reason, and never a card number."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from schemas import codec, topics
from schemas.records import CommandType, DeadLetter, PaymentCommand, PaymentTask, TaskKind
from streams import dead_letter

VISA = "4111111111111111"
COMMAND = PaymentCommand(
    type=CommandType.CREATE,
    merchant_id="shop",
    idempotency_key="order-1",
    amount_minor=1250,
    currency="ZZZ",
    payment_method="pm_approve",
)
TASK = PaymentTask(
    kind=TaskKind.CREATE,
    payment_id="708dc109-baa7-5d64-8c50-df2a0f6cefae",
    merchant_id="shop",
    idempotency_key="1764025200008",
    fingerprint=hashlib.sha256(b"41").hexdigest(),
    amount_minor=1250,
    currency="USD",
    payment_method="pm_approve",
    lane="simulator",
    accepted_at_ms=1_764_025_200_000,
)


def _with(field: str) -> PaymentCommand:
    changes: dict[str, Any] = {field: f"a {VISA}"}
    return replace(COMMAND, **changes)


def letter(original: bytes = b"{}", **changes: Any) -> DeadLetter:
    whole: dict[str, Any] = {
        "reason": "undecodable",
        "detail": "no",
        "stage": "intake",
        "topic": topics.COMMANDS,
        "partition": 3,
    }
    return dead_letter.letter(**{**whole, "offset": 17, "at_ms": 1, "original": original, **changes})


@pytest.mark.parametrize("original", [b"", b"{}", b"\x00\xff", codec.encode(COMMAND), codec.encode(TASK)])
def test_the_original_is_kept_with_its_size_and_hash(original: bytes) -> None:
    found = letter(original)
    assert (found.original, found.original_size) == (original, len(original))
    assert found.original_sha256 == hashlib.sha256(original).hexdigest()


@pytest.mark.parametrize(
    ("size", "cut", "kept"),
    [
        (64 * 1024, False, 64 * 1024),
        (64 * 1024 + 1, False, 4096),
        (256 * 1024, False, 4096),
        (5000, True, 4096),
        (9, True, 9),
    ],
)
def test_a_large_original_keeps_its_beginning(size: int, cut: bool, kept: int) -> None:
    found = letter(b"x" * size, cut=cut)
    assert (len(found.original), found.original_size) == (kept, size)
    assert len(codec.encode(found)) < 128 * 1024


@pytest.mark.parametrize(
    "original",
    [
        *(codec.encode(_with(name)) for name in (
            "merchant_id", "idempotency_key", "currency", "payment_method", "customer_id", "description", "lane")),
        codec.encode(replace(COMMAND, metadata={"a": VISA})),
        codec.encode(replace(COMMAND, metadata={VISA: "a"})),
        json.dumps({"type": "create", "amount": "x", "description": "4111 1111 1111 1111"}).encode(),
        json.dumps({VISA: 1}).encode(),
        f'{{"broken": "{VISA}'.encode(),
        VISA.encode("utf-16"),
        b"\xff" + VISA.encode(),
    ],
    ids=range(14),
)  # fmt: skip
@pytest.mark.parametrize("reason", ["undecodable", "invalid-field", "unknown-field", "not-home"])
def test_a_card_number_is_dropped_whatever_the_reason(original: bytes, reason: str) -> None:
    found = letter(original, reason=reason)
    assert (found.original, found.original_size) == (b"", len(original))
    assert VISA.encode() not in codec.encode(found)


def test_a_value_that_must_not_be_kept_is_not() -> None:
    assert letter(b"{}", keep_original=False).original == b""


def test_fields_side_by_side_are_no_card_number() -> None:
    """A task is replayed from its letter, so each field is looked at alone: Avro writes a length of 16 as a space."""
    value = codec.encode(replace(TASK, merchant_id="4111", idempotency_key="1111-1111-1111-x"))
    assert b"4111 1111-1111-1111-x" in value
    assert letter(value).original == value


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ("plain", "plain"),
        ("two\nlines\r\n\x1b[31mred", "two lines [31mred"),
        (f"card {VISA}!", "card [number]!"),
        ("card 4111-1111 1111.1111", "card [number]"),
        ("x" * 600, "x" * 500),
        ("\ud800\u2028", " "),
    ],
)
def test_a_detail_is_one_masked_line(detail: str, said: str) -> None:
    assert letter(detail=detail).detail == said


def test_a_letter_is_keyed_by_its_origin_or_by_the_payment_that_waits() -> None:
    found = letter()
    assert dead_letter.origin(found) == "payments.commands/3/17"
    assert dead_letter.message(found).key == b"payments.commands/3/17"
    assert dead_letter.message(found, key=b"id").key == b"id"
    assert codec.decode(dead_letter.message(found).value, DeadLetter) == found


def test_headers_name_the_origin_once_each() -> None:
    headers = dead_letter.message(letter(attempts=3)).headers
    names = [name for name, _ in headers]
    assert len(names) == len(set(names))
    assert dict(headers)["kifiya-first-origin"] == b"payments.commands/3/17"
    assert dict(headers)["__dlq.errors.reason"] == b"undecodable"
    assert dict(headers)["kifiya-attempts"] == b"3"
