"""The sliding log against brute force: whatever is asked when, no window holds more slots than it may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.limiter.sliding_log import AskAgain, Granted, SlidingLog

WINDOW = 1_020_000
ASKS = st.lists(
    st.tuples(st.integers(0, 3 * WINDOW), st.integers(0, 2 * WINDOW), st.booleans()),
    min_size=1,
    max_size=60,
)


def most_in_a_window(slots: list[int]) -> int:
    """The most slots that start in any window, by trying a window from each of them."""
    return max((sum(first <= slot < first + WINDOW for slot in slots) for first in slots), default=0)


@given(limit=st.integers(1, 4), asks=ASKS)
def test_no_window_holds_more_slots_than_the_limit(limit: int, asks: list[tuple[int, int, bool]]) -> None:
    """A loss of the log at any moment included."""
    log = SlidingLog(limit, WINDOW)
    now, granted = 0, list[int]()
    for passed, lead, lost in asks:
        now += passed
        if lost:
            log.slots = None
        answer = log.reserve(now, lead)
        if isinstance(answer, Granted):
            assert now <= answer.slot_us <= now + WINDOW
            assert answer.slot_us >= now + min(lead, WINDOW)
            granted.append(answer.slot_us)
        else:
            assert answer.wait_us > 0
    assert most_in_a_window(granted) <= limit


@given(limit=st.integers(1, 4), asks=ASKS)
def test_asking_again_when_told_so_is_granted(limit: int, asks: list[tuple[int, int, bool]]) -> None:
    log = SlidingLog(limit, WINDOW)
    now = 0
    for passed, lead, _ in asks:
        now += passed
        answer = log.reserve(now, lead)
        if isinstance(answer, AskAgain):
            assert isinstance(log.reserve(now + answer.wait_us, lead), Granted)


def test_a_backlog_gets_every_slot_there_is() -> None:
    log = SlidingLog(2, WINDOW, [-2 * WINDOW] * 2)
    now, granted = 0, list[int]()
    while now < 20 * WINDOW:
        answer = log.reserve(now)
        if isinstance(answer, Granted):
            granted.append(answer.slot_us)
        else:
            now += answer.wait_us
    assert granted[:4] == [0, 0, WINDOW, WINDOW]
    assert len(granted) == 2 * (granted[-1] // WINDOW + 1)


def test_a_lost_log_lets_what_was_granted_before_pass_first() -> None:
    log = SlidingLog(2, WINDOW)
    assert log.reserve(0) == AskAgain(WINDOW)
    assert log.reserve(WINDOW) == Granted(2 * WINDOW)
