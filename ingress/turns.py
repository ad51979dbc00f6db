"""In what order a lane's lines are served: how many come before one of them. Pure.

Partitions of a line, and lines of a level, are served in turn, levels by weight: before one's turn comes each of the
others gives its part, or all that it has and gets meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_ROUNDS: Final = 8
_CLOSE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Turns:
    """How lines take turns: the level of each, and the weight of each level."""

    levels: tuple[int, ...] = (0,)
    weights: tuple[int, ...] = (1,)

    def served_before(
        self, backlogs: Sequence[Sequence[float]], place: tuple[int, int], ahead: float, joining: Sequence[float]
    ) -> float:
        """How many of a lane are served before the one that has ``ahead`` before it at ``place``: line, partition.

        ``joining`` is how many join each partition of a line for each one that is served: what would run dry does not
        where they go on coming.
        """
        mine, partition = place
        limit = ahead + 0.5
        more, found = joining[mine], ahead
        totals = list(map(sum, backlogs))
        growth = [len(line) * each for line, each in zip(backlogs, joining, strict=True)]
        for _ in range(_ROUNDS):  # grows towards the answer, and no further than all giving their part
            before, own, extra = found, ahead, more * found
            for number, backlog in enumerate(backlogs[mine]):
                if number != partition:
                    own += min(backlog + extra, limit)
            found = own
            if len(totals) > 1:
                found = self._with_others([t + g * before for t, g in zip(totals, growth, strict=True)], mine, own)
            if found - before < _CLOSE:
                break
        return found

    def _with_others(self, totals: Sequence[float], mine: int, own: float) -> float:
        """``own`` of this line, and what the others give meanwhile; ``totals`` is what each of them has."""
        level = self.levels[mine]
        of_level = [0.0] * len(self.weights)
        for number, total in enumerate(totals):
            if number != mine:
                of_level[self.levels[number]] += min(total, own + 0.5) if self.levels[number] == level else total
        peers = own + of_level[level]
        turn = (peers + 0.5) / self.weights[level]
        return peers + sum(
            min(total, turn * weight)
            for other, (total, weight) in enumerate(zip(of_level, self.weights, strict=True))
            if other != level
        )
