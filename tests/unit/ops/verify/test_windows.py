from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.verify import windows

MOMENTS = st.lists(st.integers(0, 50), max_size=30)


@pytest.mark.parametrize(
    ("moments", "most", "over", "tightest"),
    [
        ([], 0, 0, None),
        ([5], 1, 0, None),
        ([0, 0], 2, 0, None),
        ([0, 0, 9], 3, 1, 9),
        ([0, 0, 10], 2, 0, 10),  # half open: the call a whole window later is in the next one
        ([20, 0, 10, 5], 2, 0, 10),
        ([0, 1, 2, 3, 13], 4, 2, 2),
    ],
)
def test_windows_of_ten_with_a_limit_of_two(moments: list[int], most: int, over: int, tightest: int | None) -> None:
    assert windows.most(moments, 10) == most
    assert windows.over(moments, 2, 10) == over
    assert windows.tightest(moments, 2) == tightest


@given(MOMENTS, st.integers(1, 5), st.integers(1, 20))
def test_the_ways_to_say_that_a_limit_holds_are_one(moments: list[int], limit: int, window: int) -> None:
    by_count = max((sum(1 for at in moments if start <= at < start + window) for start in moments), default=0)
    assert windows.most(moments, window) == by_count
    assert (by_count > limit) == (windows.over(moments, limit, window) > 0)
    tightest = windows.tightest(moments, limit)
    assert (by_count > limit) == (tightest is not None and tightest < window)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=12), st.integers(1, 3))
def test_busy_spans_are_those_where_so_many_wait(stays: list[tuple[int, int]], least: int) -> None:
    spans = windows.busy([at for at, _ in stays], [at + length for at, length in stays], least)
    for moment in range(61):
        there = sum(1 for at, length in stays if at <= moment < at + length)
        assert any(begin <= moment < end for begin, end in spans) == (there >= least)
    assert all(end < begin for (_, end), (begin, _) in pairwise(spans))


def test_the_share_used_counts_calls_and_time_of_the_spans_only() -> None:
    spans = [(0, 100), (200, 300)]
    moments = [-5, *range(0, 100, 5), 150, *range(200, 300, 10), 300]
    assert windows.used(moments, spans, limit=2, window=10) == pytest.approx(30 * 10 / (2 * 200))
    assert windows.used([1], [], limit=2, window=10) is None
    assert windows.longest_pause([0, 10, 60], [(0, 70), (100, 200)]) == 100
    assert windows.longest_pause([0, 10, 60], [(0, 70)]) == 50
