from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from random import Random

import pytest

from ops.verify.limiter import Calls, Report
from schemas.records import EventType, PaymentEvent, State
from tests.integration.sink_role import event

ACCEPTED_MS = 1_000_000


def life(sent_us: int, *, lane: str = "one", retried_us: int | None = None) -> list[PaymentEvent]:
    """PENDING, intent, outcome; with a first call that was refused where it is retried."""
    payment_id = str(uuid.uuid4())
    steps = [event(payment_id, 1, lane=lane, accepted_at_ms=ACCEPTED_MS, at_ms=ACCEPTED_MS)]
    version = 2
    for at_us in [sent_us] if retried_us is None else [sent_us, retried_us]:
        last = at_us == (retried_us or sent_us)
        steps += [
            event(payment_id, version, lane=lane, type=EventType.CALL_INTENDED, state=State.PROCESSING),
            event(
                payment_id, version + 1, lane=lane, type=EventType.CALL_FINISHED, sent_at_us=at_us, call="charge",
                state=State.COMPLETED if last else State.PENDING, outcome="approved" if last else "retryable",
            ),
        ]  # fmt: skip
        version += 2
    return steps


def replay(*lives: list[PaymentEvent], limit: int = 2) -> Report:
    calls = Calls("one", limit, 1000)
    for found in itertools.chain.from_iterable(lives):
        calls.add(found)
    return calls.report()


def at(*moments_ms: float) -> list[list[PaymentEvent]]:
    return [life(int((ACCEPTED_MS + moment) * 1000)) for moment in moments_ms]


def test_calls_within_the_limit_hold() -> None:
    report = replay(*at(0, 0, 1000, 1001, 2000, 2001))
    assert (report.calls, report.most, report.over, report.tightest_ms) == (6, 2, 0, 1000.0)
    assert report.holds
    assert "6 calls, at most 2 in any 1000 ms" in report.line()


@pytest.mark.parametrize("third_ms", [0.0, 500.0, 999.999])
def test_a_third_call_in_a_window_is_found(third_ms: float) -> None:
    report = replay(*at(0, 0, third_ms))
    assert (report.most, report.over, report.holds) == (3, 1, False)
    assert "OVER THE LIMIT" in report.line()


def test_retries_count_as_calls_and_other_lanes_do_not() -> None:
    base = ACCEPTED_MS * 1000
    assert replay(life(base, retried_us=base + 10), life(base, lane="other")).calls == 2
    assert not replay(life(base, retried_us=base + 10), life(base + 20)).holds


def test_events_count_once_in_whatever_order_they_come() -> None:
    events = [each for found in at(0, 10, 1000, 1010) for each in found] * 2
    Random(3).shuffle(events)
    assert replay(events) == replay(*[[each] for each in events[::-1]])
    assert replay(events).calls == 4


def test_a_call_that_was_not_announced_is_found() -> None:
    pending, _, finished = life(ACCEPTED_MS * 1000)
    report = replay([pending, finished])
    assert (report.without_intent, report.holds) == (1, False)
    assert "WITHOUT AN INTENT" in report.line()


def test_calls_of_which_nobody_told_are_counted_as_not_known() -> None:
    base = ACCEPTED_MS * 1000
    in_hand = life(base)[:2]
    died = [replace(each, sent_at_us=None, outcome="unknown") if each.version == 3 else each for each in life(base)]
    refused = [
        replace(each, sent_at_us=None, outcome="retryable") if each.version == 3 else each for each in life(base)
    ]
    late = [replace(each, type=EventType.CALL_NOT_SENT, sent_at_us=None) if each.version == 3 else each
            for each in life(base)]  # fmt: skip
    report = replay(in_hand, died, refused, late)
    assert (report.calls, report.unknown, report.without_intent) == (0, 2, 0)
    assert "2 calls of which the moment is not known" in report.line()


def test_the_share_used_is_that_of_the_time_in_which_payments_waited() -> None:
    full = replay(*at(*(1000 * n for n in range(40) for _ in range(2))))
    assert full.used == pytest.approx(1.0, abs=0.01)
    half = replay(*at(*(1000 * n for n in range(40))))
    assert half.used == pytest.approx(0.5, abs=0.02)
    assert half.longest_pause_ms == 1000.0
    assert replay().used is None
