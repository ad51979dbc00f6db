"""What a slot means on our clock, and when the store's clock is not to be trusted."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from streams.errors import PermitExpired
from streams.limiter.clock import FORGET_S, SLICES, Reading, Steadiness, permit_for
from streams.limiter.port import Permit

GUARD_S = 0.020
SETTLE_S = 2.0


def reading(ours: float, store_s: float | None = None, took: float = 0.002) -> Reading:
    """The store's clock is 1000 s ahead of ours, unless told otherwise."""
    return Reading(int((1000 + ours if store_s is None else store_s) * 1e6), ours - took / 2, ours + took / 2)


@given(
    offset_s=st.floats(-1e6, 1e6), before_s=st.floats(0, 0.004), after_s=st.floats(0, 0.004), ahead_s=st.floats(0, 1.02)
)
def test_inside_its_permit_a_slot_has_begun_and_is_less_than_half_the_guard_old(
    offset_s: float, before_s: float, after_s: float, ahead_s: float
) -> None:
    """Whenever between question and answer the store has read its clock."""
    read_at = 50.0
    store_us = int((read_at + offset_s) * 1e6)
    slot_us = store_us + int(ahead_s * 1e6)
    permit = permit_for(slot_us, Reading(store_us, read_at - before_s, read_at + after_s), GUARD_S)
    assert permit is not None
    slot_at = read_at + (slot_us - store_us) / 1e6
    assert permit.opens_at >= slot_at
    assert permit.closes_at <= slot_at + GUARD_S / 2 + 1e-9


def test_an_answer_that_took_too_long_is_no_permit() -> None:
    assert permit_for(1, Reading(0, 0.0, GUARD_S / 2), GUARD_S) is None


def test_a_permit_is_good_between_its_moments_only() -> None:
    permit = Permit(opens_at=1.0, closes_at=1.01, slot_us=0)
    permit.check(1.0)
    permit.check(1.01)
    with pytest.raises(PermitExpired):
        permit.check(1.0101)
    with pytest.raises(ValueError, match="not open"):
        permit.check(0.9999)


WIDTH = st.floats(0, GUARD_S / 2)


@given(
    jumps=st.lists(st.tuples(st.floats(0.02, 0.5), st.floats(-0.02, 0.02), WIDTH, WIDTH), min_size=1, max_size=4),
    first=st.tuples(WIDTH, WIDTH),
    usual=WIDTH,
    ahead_s=st.floats(0, 1.02),
)
@example(jumps=[(0.5, 0.0103, 0.0, 0.0)], first=(0.0, 0.0), usual=0.0099, ahead_s=0.5)
def test_slots_before_and_after_jumps_that_pass_unseen_stay_a_window_apart(
    jumps: list[tuple[float, float, float, float]],
    first: tuple[float, float],
    usual: float,
    ahead_s: float,
) -> None:
    """One worker has a slot; another, who saw the clock before and after it was set, has the next one.

    The store grants it a window and the guard after the first, on its clock, however often that was set.
    """
    steady = Steadiness(GUARD_S, SETTLE_S)
    for number in range(9):
        before = 48.0 + number / 4
        steady.read(Reading(int((before + 1000) * 1e6), before - usual, before))
    at, ahead = 50.0, 1000.0
    asked, heard = first
    granted = Reading(int((at + ahead) * 1e6), at - asked, at + heard)
    slot_us = granted.store_us + int(ahead_s * 1e6)
    latest = granted
    for later_s, jump_s, asked, heard in jumps:
        at, ahead = at + later_s, ahead + jump_s
        latest = Reading(int((at + ahead) * 1e6), at - asked, at + heard)
        steady.read(latest)
    taken = permit_for(slot_us, granted, GUARD_S)
    nxt = permit_for(slot_us + int((1.0 + GUARD_S) * 1e6), latest, GUARD_S)
    assume(taken is not None and nxt is not None and steady.wait_s(latest.heard_at) == 0 and at - 50.0 < 1.5)
    assert taken is not None
    assert nxt is not None
    assert nxt.opens_at - taken.closes_at >= 1.0 - 1e-4


@pytest.mark.parametrize("moved_s", [0.012, -0.012, -0.03, 3600.0, -3600.0])
def test_a_move_that_ours_did_not_make_is_a_jump(moved_s: float) -> None:
    steady = Steadiness(GUARD_S, SETTLE_S)
    for second in range(5):
        steady.read(reading(float(second)))
    assert steady.wait_s(4.0) == 0
    steady.read(reading(5.0, 1005.0 + moved_s))
    assert steady.wait_s(5.0) > 0


def test_many_small_jumps_are_one() -> None:
    steady = Steadiness(GUARD_S, SETTLE_S)
    for number in range(12):
        steady.read(reading(number / 4))
    assert steady.wait_s(2.75) == 0
    for number in range(1, 6):
        steady.read(reading(2.75 + number / 10, 1002.75 + number / 10 + number * 0.002))
    assert steady.wait_s(3.25) > 0


@pytest.mark.parametrize("every_s", [0.04, 0.25, 2.0])
@pytest.mark.parametrize("rate", [1.1, 0.9, 1.02])
def test_a_clock_that_runs_too_fast_or_slow_is_never_steady(every_s: float, rate: float) -> None:
    steady = Steadiness(GUARD_S, SETTLE_S)
    for number in range(200):
        at = number * every_s
        steady.read(reading(at, 1000 + at * rate, took=0.001))
        assert steady.wait_s(at) > 0


@pytest.mark.parametrize("every_s", [0.005, 0.04, 0.25, 2.0, 30.0])
@pytest.mark.parametrize("drift", [0.0, 1e-4, -1e-4])
def test_good_clocks_are_steady_for_ever_however_uneven_the_answers(every_s: float, drift: float) -> None:
    steady = Steadiness(GUARD_S, SETTLE_S)
    chance = random.Random(f"{every_s} {drift}")
    for number in range(2000):
        at = number * every_s
        asked, heard = chance.uniform(0, 0.004), chance.uniform(0, 0.004) if number % 7 else 0.3
        steady.read(Reading(int((1000 + at * (1 + drift)) * 1e6), at - asked, at + heard))
        steady.read(reading(at + every_s / 2, 1000 + (at + every_s / 2) * (1 + drift), took=0.001))
        assert at < 3 * SETTLE_S or steady.wait_s(at + heard) == 0, at


def test_what_is_kept_is_bounded() -> None:
    steady = Steadiness(GUARD_S, 120.0)
    for number in range(10_000):
        steady.read(reading(number / 100))
    assert len(steady._slices) <= SLICES + 1


def test_nothing_is_taken_before_two_windows_of_a_steady_clock() -> None:
    steady = Steadiness(GUARD_S, SETTLE_S)
    assert steady.wait_s(0.0) == float("inf")
    steady.read(reading(0.0))
    assert steady.wait_s(0.5) == pytest.approx(1.501)
    steady.read(reading(1.0))
    steady.read(reading(2.1))
    assert steady.wait_s(2.1) == 0.0


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 0.2, -0.2])
def test_a_jump_begins_the_wait_anew(jump_s: float) -> None:
    steady = Steadiness(GUARD_S, SETTLE_S)
    for second in range(5):
        steady.read(reading(float(second)))
    steady.read(reading(5.0, 1005.0 + jump_s))
    assert steady.wait_s(5.0) == pytest.approx(SETTLE_S, abs=0.01)
    steady.read(reading(7.2, 1007.2 + jump_s))
    assert steady.wait_s(7.2) == 0.0


def test_a_slow_answer_hides_no_jump() -> None:
    """Later answers are measured by the last exact one, not by one that allows for anything."""
    steady = Steadiness(GUARD_S, SETTLE_S)
    for second in range(5):
        steady.read(reading(float(second)))
    steady.read(reading(5.0, 1005.08, took=0.3))
    assert steady.wait_s(5.2) == 0.0
    steady.read(reading(6.0, 1006.08))
    assert steady.wait_s(6.0) > 0


def test_after_a_long_silence_the_clock_is_strange_again() -> None:
    steady = Steadiness(GUARD_S, SETTLE_S)
    steady.read(reading(0.0))
    steady.read(reading(3.0))
    assert steady.wait_s(3.0) == 0.0
    steady.read(reading(4.0 + FORGET_S))
    assert steady.wait_s(4.0 + FORGET_S) > 0
