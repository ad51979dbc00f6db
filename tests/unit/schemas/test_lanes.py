"""Lanes are read strictly: a wrong setting stops the process with the lane's name in the message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.lanes import Lane, parse_lanes


def test_lanes_are_read_in_their_order_and_the_first_is_the_default() -> None:
    found = parse_lanes('{"b": {"limit": 5, "window_ms": 2000, "url": "http://b"}, "a": {}}', default_url="http://d")
    assert list(found) == ["b", "a"]
    assert found["b"] == Lane(name="b", url="http://b", limit=5, window_ms=2000)
    assert found["a"] == Lane(name="a", url="http://d")


def test_a_lane_calls_twice_a_second_with_a_guard_of_20_ms_unless_told() -> None:
    lane = parse_lanes('{"a": {}}')["a"]
    assert (lane.limit, lane.window_ms, lane.guard_ms, lane.call_timeout_ms) == (2, 1000, 20, 10_000)


@pytest.mark.parametrize("text", ["", "a", "[]", "{}", "null", "7", '"a"', '{"a": {}', "{'a': {}}"])
def test_what_is_no_object_of_lanes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="LANES"):
        parse_lanes(text)


@pytest.mark.parametrize("name", ["", "A", "a.b", "a_b", "-a", "a b", "a" * 33, "a\n", "\u00e9", "\u0661"])
def test_a_name_fits_into_a_topics_name(name: str) -> None:
    with pytest.raises(ValueError, match="lane"):
        parse_lanes(json.dumps({name: {}}))


@pytest.mark.parametrize("name", ["a", "1", "a-b", "a" * 32, "telebirr-2"])
def test_short_names_in_lower_case_are_taken(name: str) -> None:
    assert list(parse_lanes(json.dumps({name: {}}))) == [name]


@pytest.mark.parametrize(
    "fields",
    [
        *(
            {number: value}
            for number in ("limit", "window_ms", "call_timeout_ms")
            for value in (0, -1, 1.5, "2", None, True)
        ),
        {"guard_ms": -1},
        {"guard_ms": 0.5},
        {"provider": 7},
        {"provider": None},
        {"url": 7},
        {"url": None},
        {"name": "b"},
        {"colour": "red"},
        [],
        ["limit"],
        7,
        None,
        "limit",
    ],
)
def test_a_wrong_setting_names_its_lane(fields: Any) -> None:
    with pytest.raises(ValueError, match="lane 'a'"):
        parse_lanes(json.dumps({"a": fields}))


def test_no_guard_may_be_asked_for() -> None:
    assert parse_lanes('{"a": {"guard_ms": 0}}')["a"].guard_ms == 0


def test_a_lane_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        parse_lanes('{"a": {"limit": 2}, "a": {"limit": 200}}')
