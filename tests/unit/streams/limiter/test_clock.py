"""What a slot means on our clock, and when the store's clock is not to be trusted."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streams.errors import PermitExpired
from streams.limiter.clock import FORGET_S, Reading, Steadiness, jumped, permit_for
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


@pytest.mark.parametrize(
    ("store_moved_s", "expected"),
    [(10.0, False), (10.004, False), (10.012, True), (9.988, True), (9.97, True), (3610.0, True), (-3590.0, True)],
)
def test_a_jump_is_a_move_that_ours_did_not_make(store_moved_s: float, expected: bool) -> None:
    assert jumped(reading(0.0), reading(10.0, 1000 + store_moved_s), GUARD_S) is expected


@given(
    jump_s=st.floats(-0.05, 0.05),
    later_s=st.floats(0.02, 1.0),
    ahead_s=st.floats(0, 1.02),
    before=st.tuples(st.floats(0, 0.005), st.floats(0, 0.005)),
    after=st.tuples(st.floats(0, 0.005), st.floats(0, 0.005)),
)
def test_slots_before_and_after_a_jump_that_passes_unseen_stay_a_window_apart(
    jump_s: float, later_s: float, ahead_s: float, before: tuple[float, float], after: tuple[float, float]
) -> None:
    """The store, its clock set meanwhile, grants the second slot a window and the guard after the first.

    A quarter of the guard is left, with both permits used to their last, for what the network adds.
    """
    window_s, read_at = 1.0, 50.0
    readings = [
        Reading(int((at + ahead) * 1e6), at - asked, at + heard)
        for at, ahead, (asked, heard) in ((read_at, 1000.0, before), (read_at + later_s, 1000.0 + jump_s, after))
    ]
    slot_us = readings[0].store_us + int(ahead_s * 1e6)
    first = permit_for(slot_us, readings[0], GUARD_S)
    second = permit_for(slot_us + int((window_s + GUARD_S) * 1e6), readings[1], GUARD_S)
    assume(first is not None and second is not None and not jumped(readings[0], readings[1], GUARD_S))
    assert first is not None
    assert second is not None
    assert second.opens_at - first.closes_at >= window_s + GUARD_S / 4 - 1e-5


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


def test_a_clock_that_runs_a_tenth_too_fast_is_never_steady() -> None:
    steady = Steadiness(GUARD_S, SETTLE_S)
    for number in range(100):
        steady.read(reading(number * 2.0, 1000 + number * 2.2))
        assert steady.wait_s(number * 2.0) > 0
