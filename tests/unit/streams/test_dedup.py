"""The deduplication decision, and what is remembered of a payment's first record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import dedup
from streams.dedup import Seen, Verdict

FINGERPRINT, OTHER = "ab" * 32, "cd" * 32
SEEN = Seen(
    partition=3,
    offset=17,
    seen_at_ms=1_800_000_000_500,
    accepted_at_ms=1_800_000_000_000,
    amount_minor=1250,
    fingerprint=FINGERPRINT,
    lane="simulator",
    merchant_id="shop",
    idempotency_key="order-1",
    currency="USD",
    payment_method="pm_approve",
)


@pytest.mark.parametrize(
    ("seen", "partition", "offset", "fingerprint", "verdict"),
    [
        (None, 3, 17, FINGERPRINT, Verdict.NEW),
        (SEEN, 3, 17, FINGERPRINT, Verdict.REPLAY),
        (SEEN, 3, 18, FINGERPRINT, Verdict.DUPLICATE),
        (SEEN, 4, 17, FINGERPRINT, Verdict.DUPLICATE),
        (SEEN, 3, 18, OTHER, Verdict.CONFLICT),
        (SEEN, 2, 17, OTHER, Verdict.CONFLICT),
        (SEEN, 3, 16, FINGERPRINT, Verdict.DUPLICATE),
    ],
)
def test_only_the_first_record_is_forwarded_and_only_it_again(
    seen: Seen | None, partition: int, offset: int, fingerprint: str, verdict: Verdict
) -> None:
    assert dedup.decide(seen, partition=partition, offset=offset, fingerprint=fingerprint) is verdict


visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)


@given(
    st.builds(
        Seen,
        partition=st.integers(0, 1023),
        offset=st.integers(0, 2**62),
        seen_at_ms=st.integers(0, 2**50),
        accepted_at_ms=st.integers(0, 2**50),
        amount_minor=st.integers(1, 2**62),
        fingerprint=st.binary(min_size=32, max_size=32).map(bytes.hex),
        lane=st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True),
        merchant_id=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
        idempotency_key=visible,
        currency=st.just("ETB"),
        payment_method=st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True),
    )
)
def test_what_is_remembered_survives_its_changelog(seen: Seen) -> None:
    value = dedup.encode(seen)
    assert dedup.decode(value) == seen
    assert dedup.seen_at_ms(value) == seen.seen_at_ms


def test_a_payment_takes_about_150_bytes() -> None:
    assert len(dedup.encode(SEEN)) <= 150
