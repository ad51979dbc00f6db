"""Query strings to filters, and cursors: each wrong parameter is named, and a cursor is bound to what it came of."""

from __future__ import annotations

import base64
import datetime as dt
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress import filters
from ingress.filters import Filters, Place
from ingress.problem import Problem

AT = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
PLACE = Place(AT, uuid.UUID(int=7))


def refused(*pairs: tuple[str, str], parse: Any = None) -> Problem:
    with pytest.raises(Problem) as found:
        (parse or (lambda given: filters.parse(given, "shop")))(pairs)
    assert (found.value.status, found.value.code) == (400, "invalid-parameter")
    return found.value


def test_each_filter_is_read() -> None:
    found = filters.parse(
        [
            ("status", "FAILED"), ("lane", "simulator"), ("customer_id", "c 1"), ("metadata", "order=1=2"),
            ("metadata", "channel"), ("created_from", "2026-01-31T12:00:00Z"),
            ("created_before", "2026-01-31T14:00:00.5+01:00"), ("limit", "7"),
        ],
        "shop",
    )  # fmt: skip
    before = AT + dt.timedelta(hours=1, milliseconds=500)
    assert found == Filters("FAILED", "simulator", "c 1", (("order", "1=2"), ("channel", None)), AT, before, None, 7)


def test_nothing_asks_for_everything_from_the_newest_on() -> None:
    assert filters.parse([], "shop") == Filters()
    assert Filters().end == Place(filters.LAST, uuid.UUID(int=0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("status", value) for value in ("", "failed", "DONE", "FAILED,PENDING")),
        *(("lane", value) for value in ("", "A", "-a", "a" * 33, "a\n")),
        *(("customer_id", value) for value in ("", "c" * 129, "a\0")),
        *(("metadata", value) for value in ("", "=1", "a b=1", "k" * 41, "k=" + "v" * 501, "k=\0", "é=1")),
        *((name, value) for name in ("created_from", "created_before")
          for value in ("", "2026", "2026-01-31", "2026-01-31T12:00:00", "1969-12-31T23:59:59Z",
                        "2026-01-31T12:00:00 01:00", "9999-12-31T23:59:59-01:00")),
        *(("limit", value) for value in ("", "0", "101", "-1", "1.0", "1e2", "٣", " 1", "9" * 5000)),
        *(("cursor", value) for value in ("", "x", "é", "A" * 44, "A" * 5000, "=" * 44)),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(name: str, value: str) -> None:
    assert refused((name, value)).field == name


def test_what_is_no_parameter_or_comes_twice_is_named() -> None:
    assert refused(("stauts", "FAILED")).field == "stauts"
    assert refused(("<script>", "1")).field == "(unnamed)"
    assert refused(("limit", "1"), ("limit", "1")).field == "limit"
    assert refused(*[("metadata", f"k{n}") for n in range(4)]).field == "metadata"


@given(micros=st.integers(0, (filters.LAST - filters.FIRST) // dt.timedelta(microseconds=1)), payment_id=st.uuids())
def test_a_cursor_leads_back_to_its_place(micros: int, payment_id: uuid.UUID) -> None:
    place = Place(filters.FIRST + dt.timedelta(microseconds=micros), payment_id)
    text = filters.cursor(Filters(limit=3), "shop", place)
    assert filters.parse([("cursor", text), ("limit", "9")], "shop") == Filters(after=place, limit=9)


@pytest.mark.parametrize(
    "others",
    [
        [("status", "FAILED")], [("lane", "simulator")], [("customer_id", "c")], [("metadata", "k")],
        [("created_from", "2026-01-31T12:00:00Z")], [("created_before", "2026-01-31T12:00:00Z")],
    ],
)  # fmt: skip
def test_a_cursor_of_other_filters_is_refused(others: list[tuple[str, str]]) -> None:
    plain = filters.cursor(Filters(), "shop", PLACE)
    assert refused(("cursor", plain), *others).field == "cursor"
    bound = filters.cursor(filters.parse(others, "shop"), "shop", PLACE)
    assert filters.parse([("cursor", bound), *others], "shop").after == PLACE
    assert refused(("cursor", bound)).field == "cursor"


def test_another_merchants_cursor_is_refused() -> None:
    assert refused(("cursor", filters.cursor(Filters(), "other", PLACE))).field == "cursor"


@given(st.binary(min_size=33, max_size=33))
def test_any_cursor_of_the_right_length_is_read_or_refused(raw: bytes) -> None:
    for text in (raw, b"\x01" + raw[1:], b"\x01" + base64.urlsafe_b64decode(
            filters.cursor(Filters(), "shop", PLACE))[1:9] + raw[9:]):  # fmt: skip
        try:
            filters.parse([("cursor", base64.urlsafe_b64encode(text).decode())], "shop")
        except Problem as error:
            assert error.field == "cursor"  # noqa: PT017 - either answer is right


def test_a_page_of_events_is_bounded() -> None:
    assert filters.parse_events([]) == (0, 100)
    assert filters.parse_events([("after", "7"), ("limit", "2")]) == (7, 2)
    for name, value in (("after", "-1"), ("after", str(2**31)), ("limit", "0"), ("limit", "101"), ("from", "1")):
        assert refused((name, value), parse=filters.parse_events).field == name
    assert refused(("after", "1"), ("after", "1"), parse=filters.parse_events).field == "after"
