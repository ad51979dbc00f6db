"""From the store's clock to ours: what a slot means on the local monotonic clock, whether the store's clock jumped."""

from __future__ import annotations

from dataclasses import dataclass

from streams.limiter.port import Permit


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
    """Whether the store's clock moved otherwise than ours between two answers, by more than the guard."""
    store_s = (after.store_us - before.store_us) / 1e6
    least, most = after.asked_at - before.heard_at, after.heard_at - before.asked_at
    return not least - guard_s <= store_s <= most + guard_s
