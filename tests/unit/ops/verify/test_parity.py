from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from ops.verify import parity
from ops.verify.parity import Fold, Folded, Report
from schemas import codec, topics
from schemas.records import PaymentEvent, State
from sinks import rows
from sinks.rows import Record
from tests.integration.sink_role import event

ID = "107c45ba-7681-56a0-b5fb-19153d5aa05e"
KEY = uuid.UUID(ID)


def record(value: bytes, offset: int = 0) -> Record:
    return Record(topics.EVENTS, 0, offset, 0, value)


def fold(*events: PaymentEvent) -> Fold:
    found = Fold()
    for offset, each in enumerate(events):
        found.add(record(codec.encode(each), offset))
    return found


def row(found: PaymentEvent, **changes: Any) -> tuple[Any, ...]:
    (only,) = rows.batch([record(codec.encode(found))]).payments
    return tuple(changes.get(name, value) for name, value in zip(parity.COLUMNS, only, strict=True))


STEPS = [event(ID, version) for version in (1, 2, 3)]


def test_the_highest_version_stands_whatever_comes_last() -> None:
    for order in itertools.permutations([*STEPS, STEPS[1]]):
        found = fold(*order).payments[KEY]
        assert (found.version, found.state, found.versions) == (3, "COMPLETED", 0b1110)
        assert parity.row(found, row(STEPS[2])) is None


def test_what_a_cancel_s_event_leaves_out_stands_as_the_create_said_it() -> None:
    words: dict[str, Any] = {"customer_id": "c", "metadata": {"order": "7"}}
    created = event(ID, 1, **words)
    cancelled = event(ID, 2, state=State.CANCELLED, metadata={})
    for order in itertools.permutations([created, cancelled]):
        found = fold(*order).payments[KEY]
        assert parity.row(found, row(event(ID, 2, state=State.CANCELLED, **words))) is None
        assert parity.row(found, row(cancelled)) == parity.DIFFERS


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("merchant_id", "other"), ("idempotency_key", "other"), ("fingerprint", "cd"), ("amount_minor", 1251),
        ("currency", "EUR"), ("payment_method", "pm_decline"), ("customer_id", "c"), ("description", "d"),
        ("metadata", '{"order": "8"}'), ("lane", "other"), ("attempt", 2), ("reason", "why"),
        ("provider_charge_id", "ch"), ("state", "FAILED"),
    ],
)  # fmt: skip
def test_each_column_is_held_against_the_event(column: str, value: Any) -> None:
    found = fold(*STEPS).payments[KEY]
    assert parity.row(found, row(STEPS[2], **{column: value})) == parity.DIFFERS
    assert parity.differing(row(STEPS[2]), row(STEPS[2], **{column: value})) == [column]


def test_metadata_is_compared_as_what_it_says() -> None:
    two = replace(STEPS[2], metadata={"b": "2", "a": "1"})
    assert parity.row(fold(two).payments[KEY], row(two, metadata='{"a": "1",  "b": "2"}')) is None


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        (None, STEPS[0], "has a row in PostgreSQL and no event on the topic"),
        (Folded(3, "COMPLETED", b"", 0b1110), None, "has no row in PostgreSQL"),
        (Folded(3, "COMPLETED", b"", 0b1110), STEPS[1], "is at version 2 in PostgreSQL, at 3 on the topic"),
    ],
)
def test_rows_that_are_missing_or_behind(expected: Folded | None, found: PaymentEvent | None, said: str) -> None:
    assert parity.row(expected, None if found is None else row(found)) == said


@pytest.mark.parametrize(
    ("versions", "stored", "said"),
    [
        (0b1110, [1, 2, 3], None),
        (0b1110, [3, 1], "lacks 1 of its events in PostgreSQL"),
        (0b0110, [1, 2, 3], "has 1 events in PostgreSQL that the topic does not hold"),
    ],
)
def test_the_audit_trail_is_compared_version_by_version(versions: int, stored: list[int], said: str | None) -> None:
    assert parity.trail(versions, stored) == said


@pytest.mark.parametrize(
    ("state", "told", "said"),
    [
        ("COMPLETED", "COMPLETED", None),
        ("PENDING", None, None),
        ("REVIEW", None, None),
        ("COMPLETED", None, "is COMPLETED, and not in payments.results"),
        ("COMPLETED", "FAILED", "is COMPLETED, and FAILED in payments.results"),
        ("PENDING", "FAILED", "is PENDING, and FAILED in payments.results"),
    ],
)
def test_results_say_what_the_events_say(state: str, told: str | None, said: str | None) -> None:
    assert parity.result(Folded(state=state), told) == said


def test_an_event_that_no_row_can_hold_is_counted_and_has_no_row() -> None:
    found = fold(STEPS[0])
    found.add(record(b"junk"))
    found.add(record(codec.encode(replace(STEPS[1], payment_id="no uuid"))))
    assert (list(found.payments), found.refused) == ([KEY], 2)


def test_the_report_says_the_share_that_is_the_same() -> None:
    whole = Report(payments=3, events=9, refused=0, differences={})
    assert whole.holds
    assert whole.line() == "3 payments, 9 events: parity 100.0000%"
    broken = Report(payments=4, events=9, refused=1, differences={ID: "is wrong"}, older=2)
    assert not broken.holds
    assert "parity 75.0000%; 2 older than the topic holds were left out; 1 events that no row" in broken.line()


def test_orders_of_many_payments_fold_the_same() -> None:
    events = [event(str(uuid.UUID(int=n)), version) for n in range(20) for version in (1, 2, 3)]
    first = fold(*events)
    for seed in range(5):
        Random(seed).shuffle(events)
        assert fold(*events).payments == first.payments
