"""Dead letters of the sink: whole where that is safe, cut where it is large, without what may be a card number."""

from __future__ import annotations

import hashlib

import pytest

from schemas import codec, topics
from schemas.records import DeadLetter, PaymentEvent
from sinks import refused
from sinks.rows import Refusal
from tests.unit.sinks.cases import ID, NOW_MS, event, records

CARD = "4111 1111 1111 1111"


def refusal(value: bytes | PaymentEvent) -> Refusal:
    (record,) = records(value, first=7)
    return Refusal(record, "undecodable", "no event", value if isinstance(value, PaymentEvent) else None)


def test_a_letter_says_where_and_why_and_of_which_payment() -> None:
    found = refusal(event(attempt=2))
    sent = refused.message(found, NOW_MS)
    value = found.record.value
    digest = hashlib.sha256(value).hexdigest()
    assert codec.decode(sent.value, DeadLetter) == DeadLetter(
        reason="undecodable", detail="no event", stage="sink", topic=topics.EVENTS, partition=5, offset=7,
        payment_id=ID, merchant_id="acme", lane="simulator", attempts=2, original=value, original_size=len(value),
        original_sha256=digest, at_ms=NOW_MS,
    )  # fmt: skip
    assert (sent.topic, sent.key) == (topics.DEAD_LETTER, b"payments.events/5/7")
    assert dict(sent.headers)["__dlq.errors.reason"] == b"undecodable"


@pytest.mark.parametrize(
    ("value", "cut", "kept"),
    [
        (b"", False, 0),
        (b"x" * 65536, False, 65536),
        (b"x" * 65537, False, 4096),
        (b"x" * 5000, True, 4096),
        (CARD.encode(), False, 0),
        (event(description=CARD), False, 0),
        (event(metadata={"card": CARD}), False, 0),
        (event(metadata={CARD: "x"}), False, 0),
        (event(detail=f"declined {CARD}"), False, 0),
    ],
)
def test_of_the_original_only_what_may_be_kept_is_kept(value: bytes | PaymentEvent, cut: bool, kept: int) -> None:
    found = refusal(value)
    sent = refused.letter(found, NOW_MS, cut=cut)
    assert len(sent.original) == kept
    assert sent.original_size == len(found.record.value)
    assert sent.original_sha256 == hashlib.sha256(found.record.value).hexdigest()


def test_names_of_strangers_are_cut_so_that_the_letter_fits() -> None:
    sent = refused.letter(refusal(event(payment_id="p" * 9000, merchant_id="m" * 9000, lane="l" * 9000)), NOW_MS)
    assert [len(name or "") for name in (sent.payment_id, sent.merchant_id, sent.lane)] == [255] * 3
