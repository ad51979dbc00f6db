"""How far ahead a slot is asked for, so that the intent is durable and the connection open when it begins. Pure.

Too little, and the permit is late and thrown away; too much, and an idle lane answers later than it could.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

REMEMBERED: Final = 48
"""The longest of so many preparations is exceeded by the next one in 2 of 100 cases."""
SLACK: Final = 1.25
LEAST_S: Final = 0.005
FIRST_S: Final = 0.050
"""What each of them is taken to have been before there were any."""


@dataclass(slots=True)
class Lead:
    """The lead of one process. ``longest_s`` is the limiter's window: no slot is further ahead."""

    longest_s: float
    _took_s: deque[float] = field(default_factory=lambda: deque([FIRST_S] * REMEMBERED, maxlen=REMEMBERED))

    def took(self, seconds: float) -> None:
        """From the permit's grant until the request could be written."""
        self._took_s.append(seconds)

    def turn_s(self, opens_in_s: float) -> float:
        """How long to keep the turn with a permit in hand: until two leads before its slot, in time for the next.

        Under load slots are a window ahead: calls of the last level would stand in all of them before one of the first
        comes, and a queue could not have more turns in a window than it has records in hand.
        """
        return max(0.0, opens_in_s - 2 * self.seconds())

    def seconds(self) -> float:
        """What to ask the limiter for."""
        return min(self.longest_s, SLACK * max(self._took_s) + LEAST_S)
