"""The levels of a lane's queues: who waits in which, and how often each has its turn. See ``streams.share``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

WEIGHTS: Final = (64, 16, 4, 1)
"""Turns of each level while all wait."""
DUE_IN_A_ROW: Final = 3
"""Turns of due retries, while fresh ones wait too, before one of these has its own."""
LIMITS: Final = (16, 128, 1024)
"""A merchant with fewer payments waiting sends into that level, with more into the last.

The first is what others find before them of each merchant, and how many they may send at once without falling lower;
from level to level a merchant waits for at most eight times as much of another's as it has sent itself.
"""


def level(waiting: float, limits: Sequence[float] = LIMITS) -> int:
    """The level of a merchant that has so many payments waiting."""
    for number, limit in enumerate(limits):
        if waiting < limit:
            return number
    return len(limits)
