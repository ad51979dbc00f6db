"""Whose turn it is among a lane's queues: due retries first, within bounds, and the levels of fresh tasks by weight.

Levels have weights, not priorities, so that the last one moves whatever comes into the first: nobody starves. What a
level with nothing to do leaves is the others', at once; it saves nothing up for later.

A level loses its turns while all that it has in hand is at the provider. So the turn is given as late as it can be (see
``streams.dispatch``), and a lane that calls more often has more in hand (see ``in_hand``).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final, NamedTuple

from schemas import levels, topics

WEIGHTS: Final = levels.WEIGHTS
DUE_IN_A_ROW: Final = levels.DUE_IN_A_ROW
IN_HAND_S: Final = 5.0
LEAST_IN_HAND: Final = 2
MOST_IN_HAND: Final = 32

_STRIDES: Final = tuple(max(WEIGHTS) // weight for weight in WEIGHTS)


class Queue(NamedTuple):
    """One line of tasks: a level, and the number within it."""

    level: int
    number: int = 0


DUE: Final = Queue(-1)
FIRST: Final = Queue(0)


def fresh_queues(lane: str) -> dict[str, Queue]:
    """The topics of a lane's fresh tasks, and the queue that each is."""
    return {
        topics.queue_topic(lane, level, number): Queue(level, number)
        for level, count in enumerate(topics.LEVELS)
        for number in range(count)
    }


def in_hand(limit: int, window_ms: int, partitions: int) -> int:
    """How many records of a queue's partition are in hand at once: in all of its partitions, five seconds' calls.

    While a record is on its way from the turn to its acks, a second or two under load, its partition's others wait
    behind those that are in hand. So a queue whose records are spread unevenly, and few are, would pass its turns on:
    with one of each in hand those who send ten payments waited for 130 calls, where 88 are theirs by weight.
    """
    return max(LEAST_IN_HAND, min(MOST_IN_HAND, math.ceil(IN_HAND_S * limit * 1000 / window_ms / partitions)))


def drained_s(waiting: int, all_of_lane: int, level: int, rate: float) -> float:
    """Seconds until so many of a level's queue are done at ``rate`` a second: no longer than all of the lane takes."""
    turns = WEIGHTS[level] / sum(WEIGHTS) / topics.LEVELS[level]
    return min(waiting / turns, all_of_lane) / rate


class Rota:
    """Stride scheduling: each turn of a level moves its mark on by its stride, and the hindmost mark goes next.

    A level that was away finds its mark where the others are by now, so it neither loses nor gains by that.
    """

    def __init__(self) -> None:
        self._due_in_a_row = 0
        self._marks = [0] * len(WEIGHTS)
        self._now = 0
        self._last = [0] * len(WEIGHTS)

    def choose(self, waiting: Collection[Queue]) -> Queue:
        """Give the next turn to one of these; at least one has to wait."""
        fresh = [queue for queue in waiting if queue != DUE]
        if DUE in waiting and (not fresh or self._due_in_a_row < DUE_IN_A_ROW):
            self._due_in_a_row += 1
            return DUE
        self._due_in_a_row = 0
        level = min({queue.level for queue in fresh}, key=lambda one: (self._marks[one], one))
        self._now = max(self._marks[level], self._now)
        self._marks[level] = self._now + _STRIDES[level]
        count, after = topics.LEVELS[level], self._last[level] + 1
        chosen = min((queue for queue in fresh if queue.level == level), key=lambda one: (one.number - after) % count)
        self._last[level] = chosen.number
        return chosen
