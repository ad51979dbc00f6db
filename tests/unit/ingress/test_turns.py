"""How many go before one, against a lane that serves its lines by weight, step by step."""

from __future__ import annotations

import random

import pytest

from ingress.turns import Turns

LEVELS = (0, 1, 2, 2, 2, 2)
WEIGHTS = (16, 4, 1)


def served(backlogs: list[list[int]], place: tuple[int, int], ahead: int) -> int:
    """Serve by stride, lines of a level and partitions of a line in turn; how many went before it."""
    left = [list(line) for line in backlogs]
    marks, lines, parts = [0.0] * len(WEIGHTS), [0] * len(WEIGHTS), [0] * len(backlogs)
    count = own = 0
    while True:
        waiting = [level for level in range(3) if any(any(left[n]) for n, of in enumerate(LEVELS) if of == level)]
        level = min(waiting, key=lambda one: (marks[one], one))
        marks[level] += 1 / WEIGHTS[level]
        of_level = [number for number, each in enumerate(LEVELS) if each == level and any(left[number])]
        lines[level] += 1
        line = of_level[lines[level] % len(of_level)]
        full = [partition for partition, many in enumerate(left[line]) if many]
        parts[line] += 1
        partition = full[parts[line] % len(full)]
        if (line, partition) == place:
            if own == ahead:
                return count
            own += 1
        left[line][partition] -= 1
        count += 1


@pytest.mark.parametrize("seed", range(12))
def test_it_is_as_a_lane_serves(seed: int) -> None:
    chance = random.Random(seed)
    most = [chance.choice((0, 5, 60, 400)) for _ in LEVELS]
    backlogs = [[chance.randint(0, each) for _ in range(8)] for each in most]
    line, partition = chance.randrange(len(LEVELS)), chance.randrange(8)
    backlogs[line][partition] += 50
    for ahead in (0, 20, 49):
        found = Turns(LEVELS, WEIGHTS).served_before(
            [[float(each) for each in many] for many in backlogs], (line, partition), ahead, [0.0] * len(LEVELS)
        )
        truly = served(backlogs, (line, partition), ahead)
        assert found == pytest.approx(truly, rel=0.06, abs=45)
