"""Retries among a lane's fresh payments: how many go before one of either kind, and when a retry has its turn. Pure.

A retry waits out its tier's delay, then stands in the lane's due queue, which has ``DUE_IN_A_ROW`` turns to one of the
fresh queues' while both wait. How far those of a tier are, Kafka does not tell: they are taken to be spread evenly over
its delay, as they are where calls fail at an even rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas.levels import DUE_IN_A_ROW

_ROUNDS: Final = 3
_SHARE: Final = DUE_IN_A_ROW / (DUE_IN_A_ROW + 1)


@dataclass(frozen=True, slots=True)
class Tier:
    """One delay, and how many of a lane's retries wait it out."""

    delay_s: float
    waiting: float


def due_within(tiers: Iterable[Tier], seconds: float) -> float:
    """How many become due within so long."""
    found = 0.0
    for tier in tiers:  # on the way of each create: no generator, and no call for each
        found += tier.waiting if seconds >= tier.delay_s else tier.waiting * seconds / tier.delay_s
    return found


def among(fresh: float, due: float, tiers: tuple[Tier, ...], rate: float) -> float:
    """How many retries go before a fresh payment that has so many fresh ones before it; ``rate`` is calls a second."""
    most = DUE_IN_A_ROW * (fresh + 1)
    found = min(due, most)
    for _ in range(_ROUNDS if tiers else 0):
        found = min(due + due_within(tiers, (fresh + found) / rate), most)
    return found


def turn(ahead: float, wait_s: float, tiers: tuple[Tier, ...], fresh: float, rate: float) -> tuple[float, float]:
    """How many calls go before a retry that is due in ``wait_s``, and the seconds until its own.

    ``ahead`` is how many that are due now go before it, ``fresh`` how many fresh payments wait, or come until then.
    """
    calls = rate * wait_s
    due = ahead + (max(0.0, due_within(tiers, wait_s) - 1) if wait_s else 0.0)  # one of them is itself
    done = min(due, max(calls * _SHARE, calls - fresh))
    others = min(fresh, calls - done)
    between = min(fresh - others, (due - done) / DUE_IN_A_ROW)
    return due + others + between, wait_s + (due - done + between) / rate
