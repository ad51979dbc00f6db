"""Calls of a lane that has more to do than it may are spread over its window, and no slot is lost for that."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.spread import GAP_S, SHARE, Spread

WINDOW_S = 1.02
LEAD_S = 0.05


@dataclass
class Lane:
    """The limiter's log over a clock that stands still but for the workers' waits."""

    limit: int
    now: float = 0.0
    slots: deque[float] = field(default_factory=deque)

    def acquire(self, ahead_s: float) -> float:
        first = self.slots[-self.limit] + WINDOW_S if len(self.slots) >= self.limit else 0.0
        self.slots.append(max(self.now + ahead_s, first, self.slots[-1] if self.slots else 0.0))
        return self.slots[-1]

    def ask(self, spread: Spread, lead_s: float = LEAD_S) -> float:
        """One turn of a worker: it is kept until two leads before the slot."""
        ahead_s = max(lead_s, spread.ahead_s(self.now))
        opens_at = self.acquire(ahead_s)
        spread.granted(self.now + ahead_s, opens_at)
        self.now = max(self.now, opens_at - 2 * lead_s)
        return opens_at


@pytest.mark.parametrize("limit", [1, 2, 5, 50])
def test_a_lane_with_room_calls_at_once(limit: int) -> None:
    lane, spread = Lane(limit), Spread(WINDOW_S, limit)
    for _ in range(3):
        began = lane.now
        for _ in range(limit):
            assert lane.ask(spread) == pytest.approx(began + LEAD_S)
        lane.now = began + 3 * WINDOW_S


@given(st.integers(1, 60), st.integers(1, 4), st.floats(0.005, 0.1))
def test_under_load_calls_are_spread_over_the_window_and_none_is_given_away(
    limit: int, workers: int, lead_s: float
) -> None:
    lane, spreads = Lane(limit), [Spread(WINDOW_S, limit) for _ in range(workers)]
    for number in range(8 * limit):
        lane.ask(spreads[number % workers], lead_s)
    slots = list(lane.slots)
    assert all(later - first >= WINDOW_S - 1e-9 for first, later in zip(slots, slots[limit:], strict=False))
    settled = slots[4 * limit :]
    took_s = settled[-1] - settled[0]
    # One window is lost at most while a burst is spread, and what is not lost is a window's calls each window.
    assert took_s <= (len(settled) - 1) / limit * WINDOW_S + WINDOW_S * (1 + 2 / limit)
    if workers == 1:
        together = max(sum(first <= each < first + WINDOW_S / 5 for each in settled) for first in settled)
        assert together <= WINDOW_S / 5 / min(GAP_S, SHARE * WINDOW_S / limit) + 2


def test_a_lane_whose_queue_is_empty_for_a_window_calls_at_once_again() -> None:
    lane, spread = Lane(5), Spread(WINDOW_S, 5)
    for _ in range(30):
        lane.ask(spread)
    assert spread.ahead_s(lane.now) > LEAD_S
    lane.now = lane.slots[-1] + 2 * WINDOW_S
    assert spread.ahead_s(lane.now) == 0.0
    asked_at = lane.now
    assert [lane.ask(spread) for _ in range(5)] == [pytest.approx(asked_at + LEAD_S)] * 5
