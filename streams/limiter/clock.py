"""From the store's clock to ours: what a slot means on the local monotonic clock, and whether the store's is steady.

Pure; moments are passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streams.limiter.port import Permit

UNSEEN: Final = 0.25
"""The share of the guard by which clocks may run apart between two answers: half of it goes to a permit's lateness."""
FORGET_S: Final = 60.0
"""A reading older than this says nothing about a jump: two good clocks may have drifted apart by some milliseconds."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer of the store: its time in microseconds, and our monotonic seconds before asking and after hearing."""

    store_us: int
    asked_at: float
    heard_at: float


def permit_for(slot_us: int, reading: Reading, guard_s: float) -> Permit | None:
    """The permit of a slot, or None where the answer came too slowly to know the slot within half the guard.

    The store read its clock between ``asked_at`` and ``heard_at``; the permit holds whichever moment it was.
    """
    ahead_s = (slot_us - reading.store_us) / 1e6
    opens_at = reading.heard_at + ahead_s
    closes_at = reading.asked_at + ahead_s + guard_s / 2
    return Permit(opens_at, closes_at, slot_us) if closes_at > opens_at else None


def jumped(before: Reading, after: Reading, guard_s: float) -> bool:
    """Whether the store's clock moved otherwise than ours between two answers, by more than may pass unseen."""
    unseen_s = guard_s * UNSEEN
    store_s = (after.store_us - before.store_us) / 1e6
    least, most = after.asked_at - before.heard_at, after.heard_at - before.asked_at
    return not least - unseen_s <= store_s <= most + unseen_s


@dataclass(slots=True)
class Steadiness:
    """Since when the store's clock has been seen to run as ours does.

    After a jump forward the log looks older than it is: slots that were granted before it, up to one window ahead, may
    still be used for a window, and count for another. So nothing is taken before two windows of steadiness; a worker
    that has just come, and cannot know what was before, waits as long.
    """

    guard_s: float
    settle_s: float
    _last: Reading | None = None
    _since: float = float("inf")

    def read(self, reading: Reading) -> None:
        """One more answer. Only a quick one, exact to half the guard, is kept to measure later ones by."""
        quick = reading.heard_at - reading.asked_at <= self.guard_s / 2
        last = self._last
        if last is None or reading.heard_at - last.heard_at > FORGET_S or jumped(last, reading, self.guard_s):
            self._last = reading if quick else None
            self._since = reading.heard_at if quick else float("inf")
        elif quick:
            self._last = reading

    def wait_s(self, now: float) -> float:
        """Seconds until permits may be taken; infinite where there is no exact reading to go by."""
        return max(0.0, self._since + self.settle_s - now)
