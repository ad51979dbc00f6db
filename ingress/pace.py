"""How fast a lane serves, and how fast its queues grow, measured. Pure: the clock comes in."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median_low
from typing import Final

WINDOW_S: Final = 60.0
PRIOR_S: Final = 2.0
"""How much measuring the configured limit weighs: it is all there is at first."""
STRETCH_S: Final = 5.0
LEAST_SHARE: Final = 0.1
_LEAST_RATE: Final = 1e-6


class Pace:
    """The rate at which a lane serves while it has work enough: what a lane without work does tells nothing of it."""

    def __init__(self, nominal: float) -> None:
        self.rate = max(_LEAST_RATE, nominal)
        """Calls a second; never 0."""
        self.fresh_share: float | None = None
        """Which part of the calls is for fresh tasks; None: no due one was seen."""
        self.measured_s = 0.0
        """Seconds that were measured."""
        self._nominal = nominal
        self._points: deque[tuple[float, int, int]] = deque()

    def observe(self, at: float, fresh: int, due: int, *, busy: bool) -> None:
        """So many fresh and due tasks have been served ever. Not ``busy``: begin anew."""
        if not busy or (self._points and fresh + due < self._points[-1][1] + self._points[-1][2]):
            self._points.clear()
        self._points.append((at, fresh, due))
        while self._points[-1][0] - self._points[0][0] > WINDOW_S:
            self._points.popleft()
        began, fresh_then, due_then = self._points[0]
        self.measured_s, fresh, due = at - began, fresh - fresh_then, due - due_then
        self.rate = max(_LEAST_RATE, (self._nominal * PRIOR_S + fresh + due) / (PRIOR_S + self.measured_s))
        self.fresh_share = max(LEAST_SHARE, fresh / (fresh + due)) if due else None


class Arrivals:
    """How many join each line a second, as a rule: the median of the last minute's stretches of ``STRETCH_S``.

    A mean would take the burst that a queue began with for what comes from now on: two thousand at once, and whoever
    stands behind other lines was told for ten seconds that thousands would come before it.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self._began: tuple[float, tuple[float, ...]] | None = None
        self._stretches: deque[list[float]] = deque(maxlen=round(WINDOW_S / STRETCH_S))

    def observe(self, at: float, joined: Sequence[float]) -> None:
        """So many have joined each line ever."""
        if self._began is None:
            self._began, self.rates = (at, tuple(joined)), [0.0] * len(joined)
            self._stretches.append(self.rates)
        began, fewer = self._began
        took_s = at - began
        if took_s >= STRETCH_S:
            self._stretches.append([max(0.0, now - then) / took_s for then, now in zip(fewer, joined, strict=True)])
            self._began = at, tuple(joined)
            self.rates = list(map(median_low, zip(*self._stretches, strict=True)))
