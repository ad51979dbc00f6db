"""When a held retry is due, and what becomes of a retry topic's records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, topics
from schemas.records import DeadLetter, PaymentTask, TaskKind
from streams.hold import LONGEST_EXTRA_S, MARGIN_S, Hold, Seen, longest_wait_s, plan

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
CONTEXT = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
LANES = frozenset({"simulator"})
TASK = PaymentTask(
    kind=TaskKind.CREATE,
    payment_id="107c45ba-7681-56a0-b5fb-19153d5aa05e",
    merchant_id="shop",
    idempotency_key="order-1",
    fingerprint="f1",
    amount_minor=1250,
    currency="USD",
    payment_method="pm_approve",
    lane="simulator",
    accepted_at_ms=NOW_MS - 5000,
    attempt=2,
    not_before_ms=NOW_MS + 1000,
)


def record(offset: int, value: bytes | None, timestamp_ms: int = NOW_MS) -> ConsumerRecord:
    return ConsumerRecord(
        topic="payments.retry.1s",
        partition=0,
        offset=offset,
        timestamp=timestamp_ms,
        timestamp_type=0,
        key=b"k",
        value=value,
        checksum=None,
        serialized_key_size=1,
        serialized_value_size=len(value or b""),
        headers=(("x", b"1"), CONTEXT),
    )


def task(offset: int, not_before_ms: int = NOW_MS + 1000, **changes: str) -> ConsumerRecord:
    return record(offset, codec.encode(replace(TASK, not_before_ms=not_before_ms, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("not_before_ms", "until", "now_ms", "now", "left_s"),
    [
        (NOW_MS + 1000, 102.0, NOW_MS, 100.0, 1.0),
        (NOW_MS + 1000, 102.0, NOW_MS + 1000, 101.0, 0.0),
        (NOW_MS + 1000, 102.0, NOW_MS - HOUR_MS, 100.5, 1.5),
        (NOW_MS + 1000, 102.0, NOW_MS - HOUR_MS, 102.0, 0.0),
        (NOW_MS + 1000, 102.0, NOW_MS + HOUR_MS, 100.1, 0.0),
    ],
    ids=["waits", "due", "wall clock set back", "set back, and long enough held", "wall clock set ahead"],
)
def test_a_head_is_due_by_the_wall_or_when_it_was_held_long_enough(
    not_before_ms: int, until: float, now_ms: int, now: float, left_s: float
) -> None:
    assert Hold(not_before_ms, until).left_s(now_ms, now) == left_s


@given(
    tier_s=st.floats(0.5, 300),
    asked_s=st.floats(-10, 400),
    passed_s=st.floats(0, 800),
    skew_s=st.floats(-1800, 0),
)
def test_nothing_is_early_however_far_the_wall_is_set_back(
    tier_s: float, asked_s: float, passed_s: float, skew_s: float
) -> None:
    """Time runs truly on the monotonic clock; the wall here is set back by any amount."""
    not_before_ms = NOW_MS + int(asked_s * 1000)
    hold = Hold(not_before_ms, 100.0 + longest_wait_s(tier_s, not_before_ms, NOW_MS))
    left_s = hold.left_s(NOW_MS + int((passed_s + skew_s) * 1000), 100.0 + passed_s)
    if left_s == 0 and asked_s <= tier_s + LONGEST_EXTRA_S:
        assert passed_s * 1000 >= not_before_ms - NOW_MS - 1


@pytest.mark.parametrize(
    ("tier_s", "asked_ms", "longest_s"),
    [(1.0, 1000, 1.0), (1.0, 0, 1.0), (1.0, 5000, 5.0), (1.0, 10**12, 1.0 + LONGEST_EXTRA_S), (60.0, -5, 60.0)],
)
def test_how_long_a_record_can_ask_to_be_held_is_bounded(tier_s: float, asked_ms: int, longest_s: float) -> None:
    assert longest_wait_s(tier_s, NOW_MS + asked_ms, NOW_MS) == longest_s + MARGIN_S


def test_due_records_go_on_until_the_first_that_is_not() -> None:
    records = [task(5, NOW_MS - 10), task(6, NOW_MS), task(7, NOW_MS + 300), task(8, NOW_MS - 10)]
    found = plan(records, tier_s=1.0, lanes=LANES, seen=Seen(8, 50.0), now_ms=NOW_MS, now=50.0)
    assert [step.record.offset for step in found.steps] == [5, 6]
    assert found.hold_at == 7
    assert found.hold is not None
    assert found.hold.left_s(NOW_MS, 50.0) == pytest.approx(0.3)
    for step in found.steps:
        assert step.reason is None
        assert (step.message.topic, step.message.key) == (topics.due_topic("simulator"), TASK.payment_id.encode())
        assert step.message.value == step.record.value
        assert step.message.headers == (("x", b"1"), CONTEXT)


def test_a_record_that_was_seen_earlier_is_held_from_then_on() -> None:
    found = plan([task(5)], tier_s=1.0, lanes=LANES, seen=Seen(5, 40.0), now_ms=NOW_MS - HOUR_MS, now=50.0)
    assert found.hold is None
    assert [step.record.offset for step in found.steps] == [5]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (record(5, b"junk"), "undecodable"),
        (record(5, None), "undecodable"),
        (record(5, b""), "undecodable"),
        (task(5, lane="gone"), "unknown-lane"),
    ],
)
def test_what_cannot_go_on_is_given_up_and_blocks_nothing(bad: ConsumerRecord, reason: str) -> None:
    found = plan([bad, task(6, NOW_MS)], tier_s=1.0, lanes=LANES, seen=Seen(6, 0.0), now_ms=NOW_MS, now=0.0)
    first, second = found.steps
    assert (first.reason, second.reason) == (reason, None)
    assert first.message.topic == topics.DEAD_LETTER
    assert first.message.value is not None
    assert first.message.headers[-1] == CONTEXT
    letter = codec.decode(first.message.value, DeadLetter)
    assert (letter.topic, letter.partition, letter.offset, letter.stage) == ("payments.retry.1s", 0, 5, "delay")
    assert letter.original == (bad.value or b"")
    assert letter.attempts == (1 if reason == "unknown-lane" else 0)
