"""Records to rows: the highest version of a batch, nothing refused in silence, a dead letter always a row."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import itertools
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, topics
from schemas.records import State
from sinks import rows
from tests.unit.sinks.cases import ID, NOW_MS, event, letter, records

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def letters(*values: Any) -> rows.Batch:
    return rows.batch(records(*values, topic=topics.DEAD_LETTER))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_of_a_payment_the_highest_version_is_kept_and_of_events_all(versions: list[int]) -> None:
    found = rows.batch(records(*map(event, versions), first=100))
    assert [row[5] for row in found.payments] == [max(versions)]
    assert [row[1] for row in found.events] == versions
    assert [row[16] for row in found.events] == list(range(100, 100 + len(versions)))
    assert (found.topic, found.partition, found.next_offset) == (topics.EVENTS, 5, 100 + len(versions))
    assert not found.refused


WORDS: dict[str, Any] = {"customer_id": "c", "description": "d", "metadata": {"a": "1"}, "expires_at_ms": NOW_MS}


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_a_cancel_s_event_does_not_empty_what_the_create_said(order: tuple[int, ...]) -> None:
    """Versions 2 and 3 come of cancels, whose tasks know nothing of the create's optional words."""
    steps = {1: event(1, **WORDS), 2: event(2, state=State.CANCELLED), 3: event(3, state=State.CANCELLED)}
    (row,) = rows.batch(records(*(steps[version] for version in order))).payments
    assert (row[4], row[5]) == ("CANCELLED", 3)
    assert [row[place] for place in rows.WORDS] == ["c", "d", '{"a":"1"}', AT]


def test_a_payment_s_row_holds_what_the_event_says() -> None:
    said = event(
        3,
        state=State.COMPLETED,
        metadata={"a": "1"},
        customer_id="c",
        description="d",
        expires_at_ms=NOW_MS,
        attempt=2,
        reason="r",
        provider_charge_id="ch",
        retry_at_ms=NOW_MS + 1000,
        level=2,
    )
    found = rows.batch(records(said))
    assert found.payments == [
        (
            *(uuid.UUID(ID), "acme", "k", "ab" * 32, "COMPLETED", 3, 1250, "USD", "pm_approve", "c", "d", '{"a":"1"}'),
            *("simulator", AT, 2, "r", "ch", AT, AT, AT + dt.timedelta(seconds=1), 2),
        )
    ]


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (b"", "undecodable", "wire format"),
        (b"junk", "undecodable", "wire format"),
        (codec.encode(event())[:-1], "undecodable", "PaymentEvent"),
        (codec.encode(letter()), "undecodable", "schema id"),
        (event(payment_id="no-uuid"), "refused-by-database", "payment_id is not a UUID"),
        (event(payment_id=f"{ID}\0"), "refused-by-database", "payment_id is not a UUID"),
        (event(at_ms=2**62), "refused-by-database", "a time is not between the years 1 and 9999"),
        (event(accepted_at_ms=-(2**62)), "refused-by-database", "a time is not between"),
        (event(expires_at_ms=2**62), "refused-by-database", "a time is not between"),
        *(
            (event(1, **{field: value}), "refused-by-database", "a text holds a NUL character")
            for field, value in {
                "merchant_id": "a\0",
                "idempotency_key": "\0",
                "fingerprint": "\0",
                "currency": "U\0D",
                "payment_method": "\0",
                "customer_id": "\0",
                "description": "a\0b",
                "lane": "\0",
                "metadata": {"a": "b\0"},
            }.items()
        ),
        (event(metadata={"\0": "b"}), "refused-by-database", "a text holds a NUL character"),
    ],
)
def test_what_no_row_can_hold_is_refused_with_its_reason_and_its_neighbours_stay(
    bad: Any, reason: str, detail: str
) -> None:
    found = rows.batch(records(event(1), bad, event(2)))
    (refused,) = found.refused
    assert (refused.record.offset, refused.reason) == (1, reason)
    assert detail in refused.detail
    assert [row[1] for row in found.events] == [1, 2]
    assert [row[5] for row in found.payments] == [2]


def test_what_a_provider_said_is_stored_even_with_nul_in_it() -> None:
    said = event(reason="a\0", detail="b\0", provider_charge_id="c\0", replay_id="d\0", outcome="e\0", call="f\0")
    found = rows.batch(records(said))
    assert not found.refused
    assert found.events[0][5:11] == ("f\ufffd", "e\ufffd", "a\ufffd", "b\ufffd", "c\ufffd", "d\ufffd")
    assert found.payments[0][15:17] == ("a\ufffd", "c\ufffd")


def test_an_event_s_trace_is_kept() -> None:
    (plain,) = records(event())
    traced = dataclasses.replace(plain, traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert [row[17] for row in rows.batch([plain, traced]).events] == [None, traced.traceparent]


def test_a_backslash_is_no_nul() -> None:
    found = rows.batch(records(event(metadata={"a": "\\u0000"})))
    assert (len(found.payments), found.refused) == (1, [])


def test_a_dead_letter_s_row_is_keyed_by_its_origin() -> None:
    (row,) = letters(letter(payment_id=ID)).letters
    digest = hashlib.sha256(b"junk").hexdigest()
    assert row[:6] == (topics.COMMANDS, 3, 9, "poison", "what was wrong", "intake")
    assert row[6:] == (ID, None, None, 0, b"junk", 4, digest, AT)


def test_a_letter_that_fits_no_row_is_cut() -> None:
    wide = "x\0" * 9000
    names = ("reason", "detail", "stage", "topic", "payment_id", "merchant_id", "lane", "original_sha256")
    found = letters(letter(**dict.fromkeys(names, wide), at_ms=2**62))
    (row,) = found.letters
    texts = [value for value in row if isinstance(value, str)]
    assert len(texts) == len(names)
    assert all(len(text) <= rows.DETAIL_MAX and "\0" not in text for text in texts)
    assert sum(len(text) > rows.NAME_MAX for text in texts) == 1
    assert row[13] == AT  # Kafka's time instead of one that does not exist
    assert not found.refused


def test_what_is_no_letter_stands_under_its_own_place() -> None:
    found = letters(letter(), b"junk")
    assert [row[:4] for row in found.letters] == [
        (topics.COMMANDS, 3, 9, "poison"),
        (topics.DEAD_LETTER, 5, 1, "undecodable"),
    ]
    assert found.letters[1][10:13] == (b"", 4, hashlib.sha256(b"junk").hexdigest())
    (refused,) = found.refused
    assert (refused.record.offset, refused.reason) == (1, "undecodable")


def test_a_letter_that_postgresql_refused_keeps_its_origin_and_sizes_only() -> None:
    (record,) = records(letter(payment_id=ID, merchant_id="acme"), topic=topics.DEAD_LETTER)
    found = rows.refused(record, "CheckViolationError")
    (row,) = found.letters
    assert row[:6] == (topics.COMMANDS, 3, 9, "refused-by-database", "CheckViolationError", "sink")
    assert row[6:12] == (None, None, None, 0, b"", 4)
    assert found.next_offset == 1
    assert [each.detail for each in found.refused] == ["CheckViolationError"]


def test_an_event_that_postgresql_refused_leaves_no_row_but_its_offset() -> None:
    (record,) = records(event(), first=41)
    found = rows.refused(record, "UniqueViolationError")
    assert (found.payments, found.events, found.letters, found.next_offset) == ([], [], [], 42)
    assert [each.event for each in found.refused] == [event()]
