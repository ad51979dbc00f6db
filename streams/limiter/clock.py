"""From the store's clock to ours: what a slot means on the local monotonic clock, and whether the store's is steady.

Pure; moments are passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from streams.limiter.port import Permit

EXACT: Final = 0.25
"""An answer that took no more than this share of the guard tells the store's clock exactly enough to go by."""
UNSEEN: Final = 0.25
"""The share of the guard by which clocks may run apart unseen, beside what such an answer leaves open."""
DRIFT: Final = 0.001
"""How far apart two good clocks may run, in seconds each second: twice what NTP slews."""
KEEP_S: Final = 4.0
"""How long answers are compared with one another: over much longer, good clocks run apart as well."""
FORGET_S: Final = 60.0
"""Where no exact answer came meanwhile, one older than this says nothing."""
SLICES: Final = 8
"""In so many parts the answers of that time are kept, however many there were."""
ROUNDING_S: Final = 2e-6
"""The store tells whole microseconds."""


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


@dataclass(slots=True)
class _Slice:
    """How far the store's clock can be ahead of ours after all exact answers of a short time, in seconds."""

    since: float
    least: float
    most: float


@dataclass(slots=True)
class Steadiness:
    """Since when the store's clock has been seen to run as ours does.

    After a jump forward the log looks older than it is: slots that were granted before it, up to one window ahead, may
    still be used for a window, and count for another. So nothing is taken before two windows of steadiness; a worker
    that has just come, and cannot know what was before, waits as long.

    Each answer leaves an interval for how far the store's clock is ahead of ours. While all of the last two windows
    overlap, that clock has moved by no more than the shortest of them, what a permit's own answer leaves open, and
    UNSEEN: so two slots, whichever worker has either, are a window apart on the provider's clock. Many small jumps are
    one, and a clock that runs too fast is seen as soon as it is out of the interval.
    """

    guard_s: float
    settle_s: float
    _slices: list[_Slice] = field(default_factory=list)
    _since: float = float("inf")

    def read(self, reading: Reading) -> None:
        """One more answer. One that is not exact says whether it fits, and nothing to measure later ones by."""
        now, store_s = reading.heard_at, reading.store_us / 1e6
        least, most = store_s - reading.heard_at, store_s - reading.asked_at
        exact = most - least <= self.guard_s * EXACT
        self._forget(now)
        if not self._slices or not all(self._fits(each, least, most, now) for each in self._slices):
            self._slices.clear()
            self._since = now if exact else float("inf")
        if exact:
            self._keep(least, most, now)

    def wait_s(self, now: float) -> float:
        """Seconds until permits may be taken; infinite where there is no exact reading to go by."""
        return max(0.0, self._since + self.settle_s - now)

    @property
    def _keep_s(self) -> float:
        return min(KEEP_S, self.settle_s)

    def _forget(self, now: float) -> None:
        """Drop what is older than two windows; of that, too, the last is kept where there is nothing newer."""
        kept = [each for each in self._slices if now - each.since <= self._keep_s]
        self._slices = kept or [each for each in self._slices[-1:] if now - each.since <= FORGET_S]

    def _fits(self, known: _Slice, least: float, most: float, now: float) -> bool:
        unseen_s = min(DRIFT * (now - known.since), UNSEEN * self.guard_s) + ROUNDING_S
        return least <= known.most + unseen_s and most >= known.least - unseen_s

    def _keep(self, least: float, most: float, now: float) -> None:
        last = self._slices[-1] if self._slices else None
        if last is None or now - last.since > self._keep_s / SLICES:
            self._slices.append(_Slice(now, least, most))
        else:
            last.least, last.most = max(last.least, least), min(last.most, most)
