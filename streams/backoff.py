"""When to try again: exponential over the tiers, jitter in the choice of the tier. Pure; randomness is passed in.

Delays are constant per tier, so a tier's topic is in due order; full jitter as in "Exponential Backoff And Jitter"
(AWS Architecture Blog, 2015), bounded below by half so that a provider's rest is respected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

BASE_MS: Final = 1000
FACTOR: Final = 2.0
MAX_ATTEMPTS: Final = 8


def choose_tier(attempt: int, tiers_ms: Sequence[int], retry_after_s: float | None, chance: Callable[[], float]) -> int:
    """Index of the tier for the retry after ``attempt`` wire calls (from 1).

    ``tiers_ms`` rises; ``chance`` gives [0, 1). ``retry_after_s`` picks the next longer tier, the longest at most.
    """
    if not tiers_ms:
        raise ValueError("no retry tiers")
    ceiling_ms = min(BASE_MS * FACTOR ** min(max(attempt, 1) - 1, 60), tiers_ms[-1])
    wanted_ms = ceiling_ms * (0.5 + 0.5 * chance())
    at_least_ms = max(wanted_ms, (retry_after_s or 0.0) * 1000)
    for index, delay_ms in enumerate(tiers_ms):
        if delay_ms >= at_least_ms:
            return index
    return len(tiers_ms) - 1
