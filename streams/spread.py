"""Spreads the calls of a lane that has more to do than it may over its window. Pure.

The log of slots repeats itself: what went out in a burst goes out in a burst again a window later, for as long as there
is more to do. The intents of a burst are all written at once, each takes longer for that, and slots pass before theirs
is durable: of a lane's fifty a second, every fourth was lost. A lane that has less to do calls at once, and calls that
are GAP_S apart hinder each other no more: to spread those of a long window further would only make them wait.
"""

from __future__ import annotations

import math
from typing import Final

SHARE: Final = 0.9
"""Of the window over which its calls are spread; the rest is for what comes late, or nothing would make up for it."""
GAP_S: Final = 0.02
"""Between two calls at most."""


class Spread:
    """The pace of one process. ``window_s`` is the limiter's window, with its guard; times are ``time.monotonic``'s."""

    def __init__(self, window_s: float, limit: int) -> None:
        self._window_s = window_s
        self._gap_s = min(GAP_S, SHARE * window_s / limit)
        self._full_until = -math.inf
        self._last_at = -math.inf

    def ahead_s(self, now: float) -> float:
        """How far ahead of now the next slot is to be asked for at least."""
        return max(0.0, self._last_at + self._gap_s - now) if self._last_at < self._full_until else 0.0

    def granted(self, asked_for: float, opens_at: float) -> None:
        """A slot was asked for this moment, and opens then: later, where the window before it is full."""
        if opens_at - asked_for > self._gap_s / 2:
            self._full_until = opens_at + self._window_s
        self._last_at = opens_at
