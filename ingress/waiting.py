"""How long a lane's queue is and when a payment's turn comes. Pure: samples and both clocks come in.

A lane has one line or several, each a topic. A payment meets its partition of its line at the offset that stood there
when it was accepted, behind what intake still had in hand. How many of other partitions and lines go before it is for
``turns`` to say; the time is what the lane's measured rate needs for them all.

A retry waits for its time, then stands in the due queue: see ``retries``.

Off by what came within the second between two samples through other processes, and by what changes after the answer:
retries of those ahead beyond their present share, cancelled ones, a provider that becomes slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ingress import retries
from ingress.history import History
from ingress.joined import Joined
from ingress.pace import Arrivals, Pace
from ingress.sample import Line, Sample
from ingress.turns import Turns

STALE_S: Final = 10.0
"""Kafka has not told for so long: nothing is known."""
REMEMBERED_S: Final = 0.05
"""At a thousand creates a second each would cost a hundredth more, and say the same but for its own."""
NOT_RECKONED: Final = 0.01
"""The share of what waits by which other lines may have grown meanwhile."""
_AROUND_MS: Final = 3000
"""Intake hands a payment on within this, unless it is behind."""
LATE_MS: Final = 5000
"""A retry that is due for longer, and that nobody sees in the due queue, is late, or on its way to be told."""

UNKNOWN: Final = "unknown"
BREAKER_OPEN: Final = "breaker-open"
LIMITER_AWAY: Final = "limiter-away"
NO_WORKER: Final = "no-worker"
RETRY: Final = "retry-scheduled"


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


@dataclass(frozen=True, slots=True)
class _Lately:
    """What was reckoned at a moment: what waited then, how many had joined each line, and how many go before one.

    ``waits`` and ``total`` are the sums. The last by line and partition, as far as they were asked for.
    """

    at: float
    backlogs: list[list[float]]
    waits: float
    totals: list[int]
    total: int
    before: dict[tuple[int, int], float] = field(default_factory=dict)


class Waiting:
    """One lane's queue, as this process knows it."""

    def __init__(self, nominal: float, turns: Turns | None = None) -> None:
        self.turns = turns or Turns()
        self.pace = Pace(nominal)
        self.sample: Sample | None = None
        count = len(self.turns.levels)
        self._histories = [History() for _ in range(count)]
        self._due_history = History()
        self._arrivals = Arrivals()
        self._joined = [Joined() for _ in range(count)]
        self._ended: list[list[float]] = [[] for _ in range(count)]
        self._joining = [0.0] * count
        self._due = 0
        self._lately: _Lately | None = None

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
            and sum(line.backlog for line in seen.lines) + seen.due.backlog > len(seen.lines[0].ends)
            for seen in (before, sample)
        )
        served = sum(sum(line.heads) for line in sample.lines)
        self.pace.observe(sample.at, served, sum(sample.due.heads), busy=busy)
        self.sample = sample
        self._lately = None
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
        self._due = sample.due.backlog
        self._due_history.add(sample.wall_ms, sample.due.ends)

    def last(self, line: int, partition: int, now: float) -> Standing:
        """The place of one that joins this partition of this line now."""
        sample = self.known(now)
        if sample is None:
            return _NOTHING
        lately = self._lately
        if lately is None or now - lately.at > REMEMBERED_S or self._others(lately, line) > NOT_RECKONED * lately.waits:
            backlogs = self._backlogs(sample)
            totals = [joined.total for joined in self._joined]
            lately = self._lately = _Lately(now, backlogs, sum(map(sum, backlogs)), totals, sum(totals))
        fresh = lately.before.get((line, partition))
        if fresh is None:
            fresh = self._before(lately.backlogs, line, partition, lately.backlogs[line][partition])
            lately.before[line, partition] = fresh
        return self._standing(sample, fresh + self._joined[line].total - lately.totals[line], now)

    def _others(self, lately: _Lately, line: int) -> int:
        """How many have joined other lines since."""
        return (
            sum([each.total for each in self._joined]) - lately.total - self._joined[line].total + lately.totals[line]
        )

    def of(self, lines: Iterable[int], partition: int, accepted_at_ms: int, now: float, wall_ms: int) -> Standing:
        """The place of one that was accepted then, and waits in one of these lines, the likeliest one first."""
        sample = self.known(now)
        if sample is None or partition >= self.partitions:
            return _NOTHING
        backlogs = self._backlogs(sample)
        aheads = {
            line: _ahead(
                sample.lines[line],
                self._histories[line],
                partition,
                accepted_at_ms,
                (wall_ms, backlogs[line][partition]),
            )
            for line in lines
        }
        line = next((line for line, (ahead, came) in aheads.items() if ahead >= 0 and came), None)
        if line is None:  # it is at one's head, and which one is not to be told
            line = max(aheads, key=lambda each: aheads[each][0])
        ahead = min(max(0.0, aheads[line][0]), max(0.0, backlogs[line][partition] - 1))
        return self._standing(sample, self._before(backlogs, line, partition, ahead), now)

    def _before(self, backlogs: Sequence[Sequence[float]], line: int, partition: int, ahead: float) -> float:
        return self.turns.served_before(backlogs, (line, partition), ahead, self._joining)

    def retry(self, partition: int, due_at_ms: int, now: float, wall_ms: int) -> Standing:
        """The place of a retry that may run from this moment on."""
        sample = self.known(now)
        if sample is None or partition >= len(sample.due.ends):
            return _NOTHING
        wait_s, since_s = max(0.0, (due_at_ms - wall_ms) / 1000), now - sample.at
        ahead: float = self._due
        if not wait_s:
            waiting = sample.due.ends[partition] - sample.due.heads[partition]
            if waiting <= 0 and wall_ms - due_at_ms > LATE_MS:
                return Standing(None, None, RETRY)
            own, _ = _ahead(sample.due, self._due_history, partition, due_at_ms, (wall_ms, waiting))
            backlogs = [max(0.0, end - head) for end, head in zip(sample.due.ends, sample.due.heads, strict=True)]
            own = min(max(0.0, own), max(0.0, waiting - 1))
            ahead = Turns().served_before([backlogs], (0, partition), own, [0.0])
        rate, fresh = self.pace.rate, self._fresh(sample)
        if sample.paused is not None:
            ahead += retries.due_within(sample.tiers, wait_s)
            before, _ = retries.turn(ahead, 0.0, (), fresh, rate)
            return Standing(1 + round(before), None, sample.paused)
        until_s = wait_s + since_s if wait_s else 0.0
        fresh += sum(self._arrivals.rates) * until_s
        before, eta_s = retries.turn(ahead, until_s, sample.tiers, fresh, rate)
        position = max(1, 1 + round(before - since_s * rate))
        return Standing(position, _tenths(max(wait_s, eta_s - since_s)))

    def backlog(self, now: float) -> float | None:
        """How many wait, due retries included; None where nobody can tell."""
        sample = self.known(now)
        return None if sample is None else self._fresh(sample) + self._due

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

    def _calls(self, sample: Sample, fresh: float) -> float:
        """How many calls go before one with so many fresh ones before it, the retries among them too."""
        share = self.pace.fresh_share
        due = retries.among(fresh, self._due, sample.tiers, self.pace.rate)
        return fresh + max(due, 0.0 if share is None else fresh / share - fresh)

    def _seconds(self, sample: Sample, fresh: float, now: float) -> float:
        return max(0.0, self._calls(sample, fresh) / self.pace.rate - (now - sample.at))

    def _standing(self, sample: Sample, fresh: float, now: float) -> Standing:
        calls = self._calls(sample, fresh)
        if sample.paused is not None:
            return Standing(1 + round(calls), None, sample.paused, calls / self.pace.rate)
        since_s = now - sample.at
        position = max(1, 1 + round(calls - since_s * self.pace.rate))
        eta_s = _tenths(max(0.0, calls / self.pace.rate - since_s))
        return Standing(position, eta_s, least_s=eta_s)


def _tenths(seconds: float) -> float:
    return math.ceil(seconds * 10) / 10


def _ahead(line: Line, history: History, partition: int, since_ms: int, now: tuple[int, float]) -> tuple[float, bool]:
    """How many of a line's partition are before one that joined it then; negative: it would have been served.

    Whether any came about that time. ``now`` is the time, and how many wait there.
    """
    head = line.heads[partition]
    oldest_ms = line.oldest_ms[partition] if line.oldest_ms else None
    first = None if oldest_ms is None else (oldest_ms, head)
    last = max(now[0], since_ms + 1), head + now[1]
    at = history.offset(partition, since_ms, first, last)
    later = history.offset(partition, since_ms + _AROUND_MS, first, last)
    return at - head, later > at
