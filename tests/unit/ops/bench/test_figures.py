"""Figures: percentiles, rates, ratios of one run, shares of a limit, and the lines of the table."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.bench import figures
from ops.bench.figures import Aim, Figure

MS = 1_000_000


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 99, 7.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        (list(map(float, range(1, 101))), 99, 99.0),
        (list(map(float, range(1, 101))), 100, 100.0),
        ([5.0, 6.0], 0, 5.0),
    ],
)
def test_percentile_is_a_value_that_was_measured(values: list[float], percent: float, expected: float) -> None:
    assert figures.percentile(values, percent) == expected


def test_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(figures.percentile([], 99))


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_so_many_percent_do_not_exceed_the_percentile(values: list[float], percent: float) -> None:
    found = figures.percentile(values, percent)
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-6


def test_ratios_are_those_of_each_run_not_of_the_medians() -> None:
    assert figures.ratios([50, 100, 20], [100, 200, 10]) == [0.5, 0.5, 2.0]


def test_a_ratio_to_nothing_is_not_a_number() -> None:
    assert math.isnan(figures.ratios([1], [0])[0])


def test_a_span_leaves_the_warm_up_out() -> None:
    slow_start = [0.0, 10.0, *(10 + number / 100 for number in range(1, 19))]
    found = figures.span(slow_start, warm_up=0.1)
    assert found.rate == pytest.approx(100)
    assert (found.begin, found.events) == (10.01, 17)


@pytest.mark.parametrize("times", [[], [1.0], [2.0, 2.0, 2.0]])
def test_no_span_has_no_rate(times: list[float]) -> None:
    assert math.isnan(figures.span(times).rate)


@pytest.mark.parametrize(
    ("at", "reading"), [(0.0, 10), (1.0, 10), (2.0, 15), (3.0, 20), (3.5, 50), (4.0, 80), (9.0, 80)]
)
def test_a_reading_lies_between_its_neighbours(at: float, reading: float) -> None:
    assert figures.between([(1.0, 10.0), (3.0, 20.0), (3.0, 20.0), (4.0, 80.0)], at) == reading


def test_no_samples_have_no_reading() -> None:
    assert math.isnan(figures.between([], 1.0))


def test_rate_of_counts_begins_after_the_warm_up_and_ends_with_the_last_event() -> None:
    samples = [(0.0, 0), (5.0, 0), (6.0, 20), (7.0, 60), (8.0, 100), (9.0, 100)]
    assert figures.rate_of_counts(samples) == pytest.approx(40)


@pytest.mark.parametrize("samples", [[], [(0.0, 0)], [(0.0, 0), (1.0, 5)]])
def test_rate_of_counts_needs_two_moments(samples: list[tuple[float, int]]) -> None:
    assert math.isnan(figures.rate_of_counts(samples))


def calls(seconds: float, every_ms: float) -> list[int]:
    """Two calls at a time."""
    times = range(int(seconds * 1000 / every_ms))
    return [int(number * every_ms * MS) + extra for number in times for extra in (0, 3 * MS)]


@pytest.mark.parametrize(("every_ms", "share"), [(1000, 1.0), (1020, 1 / 1.02), (2000, 0.5)])
def test_the_share_used_has_no_edges(every_ms: float, share: float) -> None:
    arrivals = calls(70, every_ms)
    begin = int(7.3 * 1e9)
    found = figures.shares_used(arrivals, begin, begin + 60 * 10**9, 3, 2)
    assert found == pytest.approx([share] * 3, rel=1e-3)


def test_a_stall_shows_in_its_slice_only() -> None:
    arrivals = [at for at in calls(70, 1000) if not 30 * 10**9 <= at < 40 * 10**9]
    found = figures.shares_used(arrivals, 0, 60 * 10**9, 3, 2)
    assert found == pytest.approx([1.0, 0.5, 1.0], abs=0.03)


def test_calls_that_cease_are_missed_until_the_end() -> None:
    arrivals = [at for at in calls(70, 1000) if at < 10 * 10**9]
    found = figures.shares_used(arrivals, 0, 60 * 10**9, 3, 2)
    assert found == pytest.approx([0.5, 0.0, 0.0], abs=0.03)


@pytest.mark.parametrize(
    ("aim", "value", "met"),
    [
        (Aim(0.7, at_least=True), 0.7, True),
        (Aim(0.7, at_least=True), 0.69, False),
        (Aim(2), 2, True),
        (Aim(2), 3, False),
        (Aim(20, strict=True), 20, False),
        (Aim(20, strict=True), -3, True),
        (Aim(20), math.nan, False),
        (Aim(0.7, at_least=True), math.nan, False),
    ],
)
def test_an_aim_is_met_or_not(aim: Aim, value: float, met: bool) -> None:
    assert aim.met(value) is met


def test_the_median_of_the_runs_counts() -> None:
    figure = Figure("intake", "ours", [0.9, 0.71, 0.2], "x", Aim(0.7, at_least=True))
    assert figure.row() == ("intake", "ours", "0.71 x", "0.20 .. 0.90", ">= 0.70 x", "yes")


@pytest.mark.parametrize(("at_least", "value"), [(True, 1.0), (False, 3.0)])
def test_the_worst_run_counts_for_a_promise(at_least: bool, value: float) -> None:
    assert Figure("b", "n", [2, 1, 3], "", Aim(2, at_least=at_least), worst=True).value == value


def test_a_figure_without_an_aim_is_neither_met_nor_missed() -> None:
    assert Figure("b", "n", [1234.5], "/s").row() == ("b", "n", "1,234 /s", "", "", "")


def test_a_figure_without_a_value_misses_its_aim() -> None:
    assert Figure("b", "n", [], "ms", Aim(1)).row() == ("b", "n", "? ms", "", "<= 1 ms", "NO")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.704, "0.70"),
        (-0.2, "-0.20"),
        (12.34, "12.3"),
        (99.96, "100.0"),
        (12345.6, "12,346"),
        (2, "2"),
        (math.nan, "?"),
    ],
)
def test_numbers_have_three_digits_that_matter(value: float, text: str) -> None:
    assert figures.number(value) == text


def test_shares_do_not_depend_on_the_order_of_the_log() -> None:
    arrivals = calls(30, 1000)
    shuffled = random.Random(1).sample(arrivals, len(arrivals))
    assert figures.shares_used(shuffled, 0, 20 * 10**9, 2, 2) == figures.shares_used(arrivals, 0, 20 * 10**9, 2, 2)
