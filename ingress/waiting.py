"""How long a lane's queue is and when a payment's turn comes. Pure: samples and both clocks come in.

A lane has one line or several, each a topic. A payment meets its partition of its line at the offset that stood there
when it was accepted, behind what intake still had in hand. How many of other partitions and lines go before it is for
``turns`` to say; the time is what the lane's measured rate needs for them all.

Off by what came within the second between two samples through other processes, and by what changes after the answer:
retries of those ahead beyond their present share, cancelled ones, a provider that becomes slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ingress.history import History
from ingress.joined import Joined
from ingress.pace import Arrivals, Pace
from ingress.turns import Turns

STALE_S: Final = 10.0
"""Kafka has not told for so long: nothing is known."""
REMEMBERED_S: Final = 0.05
"""At a thousand creates a second each would cost a hundredth more, and say the same but for its own."""
_AROUND_MS: Final = 3000
"""Intake hands a payment on within this, unless it is behind."""

UNKNOWN: Final = "unknown"
BREAKER_OPEN: Final = "breaker-open"
LIMITER_AWAY: Final = "limiter-away"
NO_WORKER: Final = "no-worker"
RETRY: Final = "retry-scheduled"


@dataclass(frozen=True, slots=True)
class Line:
    """One topic of fresh tasks, by partition: its ends, the first records that are not served yet.

    ``oldest_ms`` is when the payment at each head was accepted, None if unknown.
    """

    ends: tuple[int, ...]
    heads: tuple[int, ...]
    oldest_ms: tuple[int | None, ...] = ()

    @property
    def backlog(self) -> int:
        """How many wait in it."""
        return sum(max(0, end - head) for end, head in zip(self.ends, self.heads, strict=True))


@dataclass(frozen=True, slots=True)
class Sample:
    """A lane at one moment, ``at`` in monotonic seconds.

    ``arriving`` is what intake has in hand for the lane; ``paused`` says why nothing is called now, None where it is.
    """

    at: float
    wall_ms: int
    lines: tuple[Line, ...]
    due: int = 0
    due_done: int = 0
    arriving: float = 0.0
    paused: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A payment's place in the queue, 1 being next, and the seconds until its call; None where nobody can tell.

    ``least_s`` is what it takes at least, where the lane rests.
    """

    position: int | None
    eta_s: float | None
    reason: str | None = None
    least_s: float = field(default=0.0, compare=False)


_NOTHING: Final = Standing(None, None, UNKNOWN)


class Waiting:
    """One lane's queue, as this process knows it."""

    def __init__(self, nominal: float, turns: Turns | None = None) -> None:
        self.turns = turns or Turns()
        self.pace = Pace(nominal)
        self.sample: Sample | None = None
        count = len(self.turns.levels)
        self._histories = [History() for _ in range(count)]
        self._arrivals = Arrivals()
        self._joined = [Joined() for _ in range(count)]
        self._ended: list[list[float]] = [[] for _ in range(count)]
        self._joining = [0.0] * count
        self._lately: dict[tuple[int, int], tuple[float, int, float]] = {}
        """By line and partition: when it was reckoned, how many had joined the line, and how many go before one."""

    @property
    def partitions(self) -> int:
        """How many partitions each line has; 0: not known yet."""
        return len(self.sample.lines[0].ends) if self.sample else 0

    def counted(self) -> list[list[int]]:
        """What has joined so far: taken before a sample, and given back with it."""
        return [list(line.counts) for line in self._joined]

    def joined(self, line: int, partition: int, wall_ms: int) -> None:
        """One more was accepted by this process."""
        self._joined[line].add(partition, wall_ms)

    def observe(self, sample: Sample, counted: Sequence[Sequence[int]]) -> None:
        """The lane has been looked at."""
        before = self.sample
        busy = all(
            seen is not None
            and seen.paused is None
            and sum(line.backlog for line in seen.lines) + seen.due > len(seen.lines[0].ends)
            for seen in (before, sample)
        )
        served = sum(sum(line.heads) for line in sample.lines)
        self.pace.observe(sample.at, served, sample.due_done, busy=busy)
        self.sample = sample
        self._lately.clear()
        self._arrivals.observe(sample.at, [sum(line.ends) for line in sample.lines])
        rates = self._arrivals.rates
        self._joining = [rate / self.pace.rate / self.partitions for rate in rates]
        shares = [rate / sum(rates) for rate in rates] if sum(rates) else [1.0] + [0.0] * (len(rates) - 1)
        for number, line in enumerate(sample.lines):
            more = sample.arriving * shares[number] / len(line.ends)
            ends = [end + more for end in line.ends]
            history, known = self._histories[number], self._ended[number]
            for at_ms, then in self._joined[number].looked(counted[number], known, ends, sample.wall_ms):
                history.add(at_ms, then)
            history.add(sample.wall_ms, ends)
            self._ended[number] = ends

    def last(self, line: int, partition: int, now: float) -> Standing:
        """The place of one that joins this partition of this line now."""
        sample = self.known(now)
        if sample is None:
            return _NOTHING
        joined = self._joined[line].total
        at, total, fresh = self._lately.get((line, partition), (-math.inf, 0, 0.0))
        if now - at > REMEMBERED_S:
            backlogs = self._backlogs(sample)
            fresh = self._before(backlogs, line, partition, backlogs[line][partition])
            self._lately[line, partition] = now, joined, fresh
        else:
            fresh += joined - total
        return self._standing(sample, fresh, now)

    def of(self, lines: Iterable[int], partition: int, accepted_at_ms: int, now: float, wall_ms: int) -> Standing:
        """The place of one that was accepted then, and waits in one of these lines, the likeliest one first."""
        sample = self.known(now)
        if sample is None or partition >= self.partitions:
            return _NOTHING
        backlogs = self._backlogs(sample)
        aheads = {
            line: self._ahead(sample, line, partition, accepted_at_ms, (wall_ms, backlogs[line][partition]))
            for line in lines
        }
        line = next((line for line, (ahead, came) in aheads.items() if ahead >= 0 and came), None)
        if line is None:  # it is at one's head, and which one is not to be told
            line = max(aheads, key=lambda each: aheads[each][0])
        ahead = min(max(0.0, aheads[line][0]), max(0.0, backlogs[line][partition] - 1))
        return self._standing(sample, self._before(backlogs, line, partition, ahead), now)

    def _before(self, backlogs: Sequence[Sequence[float]], line: int, partition: int, ahead: float) -> float:
        return self.turns.served_before(backlogs, (line, partition), ahead, self._joining)

    def _ahead(
        self, sample: Sample, number: int, partition: int, accepted_at_ms: int, now: tuple[int, float]
    ) -> tuple[float, bool]:
        """How many of this line's partition would be before it; negative: it would have been served. Whether any came.

        ``now`` is the time, and how many wait there.
        """
        line = sample.lines[number]
        head = line.heads[partition]
        oldest_ms = line.oldest_ms[partition] if line.oldest_ms else None
        first = None if oldest_ms is None else (oldest_ms, head)
        last = max(now[0], accepted_at_ms + 1), head + now[1]
        at = self._histories[number].offset(partition, accepted_at_ms, first, last)
        later = self._histories[number].offset(partition, accepted_at_ms + _AROUND_MS, first, last)
        return at - head, later > at

    def backlog(self, now: float) -> float | None:
        """How many wait, due retries included; None where nobody can tell."""
        sample = self.known(now)
        return None if sample is None else self._fresh(sample) + sample.due

    def drain_s(self, now: float) -> float | None:
        """Seconds until all that waits now is served; None where nobody can tell."""
        sample = self.known(now)
        if sample is None or sample.paused is not None:
            return None
        return self._seconds(sample, self._fresh(sample), now)

    def known(self, now: float) -> Sample | None:
        """The last sample, where it still tells anything."""
        return None if self.sample is None or now - self.sample.at > STALE_S else self.sample

    def _fresh(self, sample: Sample) -> float:
        return sum(map(sum, self._backlogs(sample)))

    def _backlogs(self, sample: Sample) -> list[list[float]]:
        """What waits in each partition of each line: at the last look, and what this process has accepted since."""
        return [
            [max(0.0, end - head + more) for end, head, more in zip(ended, line.heads, joined.since, strict=True)]
            for ended, line, joined in zip(self._ended, sample.lines, self._joined, strict=True)
        ]

    def _seconds(self, sample: Sample, fresh: float, now: float) -> float:
        share = self.pace.fresh_share
        calls = fresh + sample.due if share is None else fresh / share
        return max(0.0, calls / self.pace.rate - (now - sample.at))

    def _standing(self, sample: Sample, fresh: float, now: float) -> Standing:
        if sample.paused is not None:
            least_s = (fresh + sample.due) / self.pace.rate
            return Standing(1 + round(fresh + sample.due), None, sample.paused, least_s)
        gone = (now - sample.at) * self.pace.rate
        position = max(1, 1 + round(fresh + sample.due - gone))
        eta_s = math.ceil(self._seconds(sample, fresh, now) * 10) / 10
        return Standing(position, eta_s, least_s=eta_s)
