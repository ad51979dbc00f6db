"""Fair share of a lane: which of its queues a payment waits in, by how much its merchant has waiting. Pure.

A multi-level queue, because a lane's backlog stands in Kafka: a scheduler that looks at each waiting payment would have
to read hours of it into memory, and one in front of which a single topic stands sees no further than its window. Here
a merchant that has something waiting costs one number, and a queued payment nothing.

The number is the finish tag of weighted fair queueing: the round in which the merchant's last payment would be called
if the lane went round all merchants in turn. What the lane has really done moves the rounds on, so that an outage
forgives nobody, and a merchant that sends no more than its share comes back to the first level by itself; its new
payments may then pass older ones of its own.

It is counted in each intake process, for its part of the commands, and forgotten with the process: a restart lets each
merchant put as many payments as a level takes there once more, and nothing else. A merchant is who the command names:
without API keys or ACLs it may call itself anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush, heapreplace, nlargest
from typing import Any, Final

from schemas import levels

LIMITS: Final = levels.LIMITS
UNEVEN: Final = 2
"""How many more than its part a process may see of a merchant's first ones."""
MOST: Final = 10_000
"""Merchants remembered by lane; for one more, the one that has least waiting is forgotten."""

TOLD: Final = 500
"""Merchants by lane of which the ingress is told."""

LEAST: Final = 0.001
GREATEST: Final = 1000


class Rounds:
    """The merchants that have something waiting in one lane, and the round that it has come to."""

    def __init__(self) -> None:
        self._now = 0.0
        self._finish: dict[str, float] = {}
        self._weights = 0.0
        self._first: list[tuple[float, str, float]] = []
        """A heap of finish, merchant and weight, one item for each; the finish may have moved on since."""

    def __len__(self) -> int:
        return len(self._finish)

    def send(self, merchant: str, weight: float) -> float:
        """One more payment of this merchant's; how many it has waiting before it, over its weight."""
        found = self._finish.get(merchant)
        if found is None:
            if len(self._first) >= MOST:
                self._least()
                self._drop()
            found = self._now
            self._weights += weight
            heappush(self._first, (found, merchant, weight))
        self._finish[merchant] = found + 1 / weight
        return found - self._now

    def serve(self, count: float) -> None:
        """The lane has done so many payments: each merchant's part of them is off its number."""
        while self._first and count > 0:
            finish = self._least()
            needed = (finish - self._now) * self._weights
            if needed > count:
                self._now += count / self._weights
                return
            count -= needed
            self._now = finish
            self._drop()

    def most(self, count: int) -> list[tuple[str, float]]:
        """Those merchants that have most waiting, and how many over their weight."""
        found = nlargest(count, self._finish.items(), key=lambda item: item[1])
        return [(merchant, finish - self._now) for merchant, finish in found]

    def clear(self) -> None:
        """Nothing waits in the lane."""
        self._finish.clear()
        self._first.clear()
        self._weights = 0.0

    def _least(self) -> float:
        """Bring whoever is through first to the top of the heap; when that is."""
        while True:
            finish, merchant, weight = self._first[0]
            latest = self._finish[merchant]
            if latest == finish:
                return finish
            heapreplace(self._first, (latest, merchant, weight))

    def _drop(self) -> None:
        _, merchant, weight = heappop(self._first)
        del self._finish[merchant]
        self._weights = self._weights - weight if self._first else 0.0


class Share:
    """Fair share of all lanes in one process. ``weights`` by merchant, 1 where it names none."""

    def __init__(self, lanes: Iterable[str], weights: Mapping[str, float] | None = None) -> None:
        self._weights = weights or {}
        self._lanes = {name: Rounds() for name in lanes}
        self._placed: set[str] = set()
        self._part = 1.0
        self._limits = tuple(map(float, LIMITS))

    def place(self, lane: str, merchant: str) -> int:
        """The level for the merchant's next payment in this lane."""
        rounds = self._lanes.get(lane)
        if rounds is None:
            return 0
        self._placed.add(lane)
        return levels.level(rounds.send(merchant, self._weights.get(merchant, 1.0)), self._limits)

    def owns(self, part: float) -> None:
        """So much of all commands come to this process, more than 0 and at most 1; of some merchant's a little more."""
        self._part = part
        self._limits = tuple(limit * part + UNEVEN * (1 - part) for limit in LIMITS)

    def done(self, lane: str, count: int, *, idle: bool) -> None:
        """All workers together have done so many more of the lane's fresh payments; ``idle``: none is seen to wait.

        What was placed since the last time may be on its way to the lane yet: then that is no reason to forget it.
        """
        rounds = self._lanes[lane]
        if idle and lane not in self._placed:
            rounds.clear()
        else:
            rounds.serve(count * self._part)
        self._placed.discard(lane)

    def ahead(self) -> dict[str, dict[str, float]]:
        """By lane and merchant, of those that have most: how many payments over all processes, over its weight."""
        return {
            lane: {merchant: round(waiting / self._part, 1) for merchant, waiting in rounds.most(TOLD)}
            for lane, rounds in self._lanes.items()
        }

    def waiting(self, lane: str) -> int:
        """Merchants that have something waiting in this lane."""
        return len(self._lanes[lane])


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("MERCHANT_WEIGHTS names a merchant twice")
    return found


def parse_weights(text: str) -> dict[str, float]:
    """Read ``{"merchant": 2.5, ...}``. Raises ValueError that says what is wrong, naming the merchant."""
    try:
        found = json.loads(text, object_pairs_hook=_no_twins)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"MERCHANT_WEIGHTS is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("MERCHANT_WEIGHTS must be a JSON object of numbers by merchant")  # noqa: TRY004 - one error for all that is wrong with it
    for merchant, weight in found.items():
        if not merchant or isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"MERCHANT_WEIGHTS: merchant {merchant!r}: a weight is a number")
        if not LEAST <= weight <= GREATEST:
            raise ValueError(f"MERCHANT_WEIGHTS: merchant {merchant!r}: a weight is from {LEAST} to {GREATEST}")
    return {merchant: float(weight) for merchant, weight in found.items()}
