"""The state machine as tables: what is decided, what each outcome makes of a payment, what is published."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import EventType, PaymentTask, State, TaskKind
from streams import payment
from streams.payment import Call, Entry, Retry, Rules, Step
from streams.providers.port import Outcome, OutcomeKind

NOW = 1_800_000_000_000
RULES = Rules(max_attempts=3, key_lifetime_ms=60_000)
RETRY = Retry("2s", NOW + 2000)
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
    accepted_at_ms=NOW - 1000,
)
FRESH = payment.fresh(TASK)


def outcome(kind: OutcomeKind, *, sent: bool = True) -> Outcome:
    return Outcome(
        kind=kind, reason=None, detail=None, provider_charge_id="ch_1" if sent else None, retry_after_s=None, sent=sent
    )


def called(kind: OutcomeKind, call: Call = Call.CHARGE, entry: Entry = FRESH, *, sent: bool = True) -> Entry:
    """The entry after one call with this outcome."""
    intended = payment.intend(entry, replace(TASK, attempt=entry.attempt + 1), call, NOW)
    return payment.settle(intended, outcome(kind, sent=sent), before=entry, retry=RETRY, now_ms=NOW, rules=RULES)


UNKNOWN = called(OutcomeKind.UNKNOWN)
ABSENT = called(OutcomeKind.ABSENT, Call.STATUS, UNKNOWN)
REFUSED = called(OutcomeKind.RETRYABLE)
APPROVED = called(OutcomeKind.APPROVED)
REJECTED = called(OutcomeKind.REJECTED)
INTENDED = payment.intend(FRESH, TASK, Call.CHARGE, NOW)
CANCELLED = payment.cancel(FRESH, "0/1", NOW)
NO_KEYS = Rules(key_lifetime_ms=None)


@pytest.mark.parametrize(
    ("entry", "change", "rules", "step"),
    [
        (None, {}, RULES, Step.CHARGE),
        (FRESH, {"fingerprint": "other"}, RULES, Step.CONFLICT),
        (None, {"expires_at_ms": NOW}, RULES, Step.EXPIRE),
        (None, {"expires_at_ms": NOW + 1}, RULES, Step.CHARGE),
        (INTENDED, {}, RULES, Step.INTERRUPTED),
        (APPROVED, {}, RULES, Step.PUBLISH_AGAIN),
        (REFUSED, {}, RULES, Step.PUBLISH_AGAIN),
        (REFUSED, {"attempt": 2}, RULES, Step.CHARGE),
        (REFUSED, {"attempt": 2, "expires_at_ms": NOW - 1}, RULES, Step.CHARGE),
        (REFUSED, {"attempt": 2}, NO_KEYS, Step.STATUS),
        (REFUSED, {"attempt": 3}, RULES, Step.DROP),
        (UNKNOWN, {"attempt": 2}, RULES, Step.STATUS),
        (ABSENT, {"attempt": 3}, RULES, Step.CHARGE),
        (ABSENT, {"attempt": 3}, NO_KEYS, Step.REVIEW),
        (replace(ABSENT, first_called_at_ms=NOW - 60_000), {"attempt": 3}, RULES, Step.REVIEW),
        (replace(REFUSED, first_called_at_ms=NOW - 60_000), {"attempt": 2}, RULES, Step.STATUS),
        (ABSENT, {"attempt": 1}, RULES, Step.DROP),
        (CANCELLED, {}, RULES, Step.PUBLISH_AGAIN),
        (APPROVED, {"attempt": 2, "replay_id": "r1"}, RULES, Step.PUBLISH_AGAIN),
        (REJECTED, {"attempt": 2}, RULES, Step.PUBLISH_AGAIN),
        (REJECTED, {"attempt": 2, "replay_id": "r1"}, RULES, Step.STATUS),
    ],
)
def test_what_is_done_follows_from_ledger_and_task(
    entry: Entry | None, change: dict[str, object], rules: Rules, step: Step
) -> None:
    assert payment.decide(replace(TASK, **change), entry, NOW, rules) is step  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "call", "state", "retried"),
    [
        (OutcomeKind.APPROVED, Call.CHARGE, State.COMPLETED, False),
        (OutcomeKind.DECLINED, Call.CHARGE, State.FAILED, False),
        (OutcomeKind.REJECTED, Call.CHARGE, State.REVIEW, False),
        (OutcomeKind.RETRYABLE, Call.CHARGE, State.PENDING, True),
        (OutcomeKind.UNKNOWN, Call.CHARGE, State.UNKNOWN, True),
        (OutcomeKind.ABSENT, Call.STATUS, State.PENDING, True),
        (OutcomeKind.UNKNOWN, Call.STATUS, State.UNKNOWN, True),
        (OutcomeKind.RETRYABLE, Call.STATUS, State.UNKNOWN, True),
        (OutcomeKind.APPROVED, Call.STATUS, State.COMPLETED, False),
    ],
)
def test_each_outcome_has_its_state(kind: OutcomeKind, call: Call, state: State, retried: bool) -> None:
    entry = called(kind, call)
    assert entry.state is state
    retry = payment.retry_of(TASK, entry)
    assert (retry is not None) is retried
    if retry:
        assert (retry[0], retry[1].attempt, retry[1].not_before_ms) == ("2s", 2, NOW + 2000)
    assert (payment.result_of(TASK, entry) is not None) is entry.final


@pytest.mark.parametrize(
    ("entry", "retry_at_ms"),
    [
        (REFUSED, NOW + 2000),
        (UNKNOWN, NOW + 2000),
        (payment.cancel(UNKNOWN, "0/9", NOW), NOW + 2000),
        (
            payment.not_sent(REFUSED, payment.intend(REFUSED, replace(TASK, attempt=2), Call.CHARGE, NOW), NOW),
            NOW + 2000,
        ),
        (payment.not_sent(FRESH, INTENDED, NOW), None),
        (payment.intend(REFUSED, replace(TASK, attempt=2), Call.CHARGE, NOW), None),
        (INTENDED, None),
        (APPROVED, None),
        (REJECTED, None),
        (payment.cancel(called(OutcomeKind.RETRYABLE, sent=False), "0/9", NOW), None),
        (payment.review(UNKNOWN, "key-expired", NOW), None),
    ],
)
def test_an_event_says_when_the_payment_may_be_called_again(entry: Entry, retry_at_ms: int | None) -> None:
    assert payment.event_of(TASK, entry).retry_at_ms == retry_at_ms


def test_attempts_end_in_review_and_a_replay_has_a_new_budget() -> None:
    entry = FRESH
    for _ in range(RULES.max_attempts):
        assert entry.state is not State.REVIEW
        entry = called(OutcomeKind.RETRYABLE, entry=entry)
    assert (entry.state, entry.reason) == (State.REVIEW, "attempts-exhausted")
    task = replace(TASK, attempt=entry.attempt + 1, replay_id="r1")
    again = payment.intend(entry, task, Call.STATUS, NOW)
    after = payment.settle(again, outcome(OutcomeKind.ABSENT), before=entry, retry=RETRY, now_ms=NOW, rules=RULES)
    assert after.state is State.PENDING
    assert after.replay_id == "r1"


def test_a_call_that_was_never_sent_leaves_the_payment_cancellable() -> None:
    entry = called(OutcomeKind.RETRYABLE, sent=False)
    assert payment.cancel(entry, "0/9", NOW).state is State.CANCELLED
    back = payment.not_sent(FRESH, INTENDED, NOW)
    assert (back.attempt, back.version, back.first_called_at_ms) == (0, 3, None)
    assert payment.cancel(back, "0/9", NOW).state is State.CANCELLED


@pytest.mark.parametrize("entry", [INTENDED, UNKNOWN, REFUSED, APPROVED, REJECTED])
def test_a_cancel_loses_once_the_payment_may_have_been_sent(entry: Entry) -> None:
    after = payment.cancel(entry, "0/9", NOW)
    assert after.state is entry.state
    event = payment.event_of(TASK, after)
    assert event.type is EventType.CANCEL_REFUSED
    assert event.reason in {"already-sent", "already-completed"}
    assert payment.cancel(after, "0/9", NOW) is after


def test_a_second_cancel_of_what_is_cancelled_changes_nothing() -> None:
    assert payment.cancel(CANCELLED, "0/9", NOW) is CANCELLED


@pytest.mark.parametrize("entry", [FRESH, INTENDED, UNKNOWN, ABSENT, REFUSED, APPROVED, REJECTED, CANCELLED])
def test_an_entry_survives_its_changelog(entry: Entry) -> None:
    assert payment.decode(payment.encode(entry)) == entry


def test_recovery_keeps_the_final_and_then_the_newest_entry() -> None:
    final, newer = payment.encode(APPROVED), payment.encode(replace(UNKNOWN, version=2))
    assert payment.winner(None, newer) == newer
    assert payment.winner(final, newer) == final
    assert payment.winner(newer, final) == final
    assert payment.winner(payment.encode(FRESH), newer) == newer
    assert payment.winner(newer, payment.encode(FRESH)) == newer


def test_a_final_entry_that_beats_a_later_version_gets_one_above_it() -> None:
    """Consumers have seen the later version, and keep the highest."""
    final, later = payment.encode(APPROVED), payment.encode(replace(UNKNOWN, version=9))
    kept = payment.decode(payment.winner(final, later))
    assert kept == replace(APPROVED, version=10)
    assert payment.decode(payment.winner(later, final)) == kept
    assert payment.winner(payment.encode(kept), later) == payment.encode(kept)


@given(st.lists(st.sampled_from(list(OutcomeKind)), min_size=1, max_size=30))
def test_versions_rise_and_a_final_payment_is_never_called_again(kinds: list[OutcomeKind]) -> None:
    entry: Entry = FRESH
    for kind in kinds:
        task = replace(TASK, attempt=entry.attempt + 1)
        step = payment.decide(task, entry, NOW, RULES)
        if step not in payment.CALLS:
            assert entry.state in {State.COMPLETED, State.FAILED, State.REVIEW}
            return
        intended = payment.intend(entry, task, Call(step.value), NOW)
        after = payment.settle(intended, outcome(kind), before=entry, retry=RETRY, now_ms=NOW, rules=RULES)
        assert after.version == intended.version + 1 == entry.version + 2
        assert payment.decide(task, after, NOW, RULES) is Step.PUBLISH_AGAIN
        entry = after
