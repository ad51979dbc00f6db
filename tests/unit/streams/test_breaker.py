"""The breaker over a clock that the test turns."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.breaker import AT_LEAST, LAST, OPEN_S, PROBE_S, Breaker


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker(clock)
    for _ in range(AT_LEAST):
        breaker.leave(breaker.enter(), ok=False)
    assert breaker.is_open
    return breaker


@pytest.mark.parametrize(
    ("calls", "is_open"),
    [
        ("-" * 9, False),
        ("-" * 10, True),
        ("+-" * 5, True),
        ("+" * 6 + "-" * 4, False),
        ("+" * 20 + "-" * 9, False),
        ("+" * 20 + "-" * 10, True),
        ("+" * 100, False),
    ],
)
def test_it_opens_at_half_failures_among_the_last_twenty_of_at_least_ten(calls: str, is_open: bool) -> None:
    breaker = Breaker(Clock())
    for call in calls:
        breaker.leave(breaker.enter(), ok=call == "+")
    assert breaker.is_open is is_open


def test_open_it_holds_back_then_lets_one_probe_in() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert breaker.wait_s() == OPEN_S
    clock.now = OPEN_S
    assert breaker.wait_s() == 0
    probe = breaker.enter()
    assert breaker.admits(probe)
    assert breaker.wait_s() == PROBE_S


@pytest.mark.parametrize(("ok", "is_open"), [(True, False), (False, True)])
def test_the_probe_decides(ok: bool, is_open: bool) -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = OPEN_S
    breaker.leave(breaker.enter(), ok=ok)
    assert breaker.is_open is is_open
    assert breaker.wait_s() == (OPEN_S if is_open else 0)


def test_a_probe_that_was_never_sent_makes_room_for_the_next() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = OPEN_S
    breaker.leave(breaker.enter(), ok=None)
    assert breaker.is_open
    assert breaker.wait_s() == 0


def test_a_probe_that_hangs_makes_room_after_a_while_and_has_no_say_any_more() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = OPEN_S
    hanging = breaker.enter()
    clock.now += PROBE_S
    assert breaker.wait_s() == 0
    second = breaker.enter()
    assert not breaker.admits(hanging)
    breaker.leave(hanging, ok=False)
    breaker.leave(second, ok=True)
    assert not breaker.is_open


def test_a_call_that_began_before_it_opened_neither_closes_it_nor_may_still_be_made() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    early = breaker.enter()
    for _ in range(AT_LEAST):
        breaker.leave(breaker.enter(), ok=False)
    assert not breaker.admits(early)
    breaker.leave(early, ok=True)
    assert breaker.is_open
    clock.now = OPEN_S
    breaker.enter()
    breaker.leave(early, ok=True)
    assert breaker.is_open


def test_it_begins_with_a_clean_slate_after_closing() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = OPEN_S
    breaker.leave(breaker.enter(), ok=True)
    for _ in range(AT_LEAST - 1):
        breaker.leave(breaker.enter(), ok=False)
    assert not breaker.is_open


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "ok", "bad", "none"]), st.floats(0, 8), st.integers(0, LAST)), max_size=120
    )
)
def test_half_open_never_has_two_probes_at_once(steps: list[tuple[str, float, int]]) -> None:
    """Whatever enters and leaves when: while it is open, at most one call is admitted."""
    clock = Clock()
    breaker = Breaker(clock)
    out: list[int] = []
    for what, passed, which in steps:
        clock.now += passed
        if what == "enter":
            if breaker.wait_s() == 0:
                out.append(breaker.enter())
        elif out:
            breaker.leave(out.pop(which % len(out)), ok={"ok": True, "bad": False, "none": None}[what])
        if breaker.is_open:
            assert sum(breaker.admits(ticket) for ticket in out) <= 1
        assert breaker.wait_s() <= max(OPEN_S, PROBE_S)
