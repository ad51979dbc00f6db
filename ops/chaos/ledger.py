"""The ledger of a run: what was done to the gateway, what became of the payments, each promise kept or broken. Pure."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ops.chaos.checker import PROMISES, Case, Violation
from ops.chaos.evidence import Answer, Evidence
from ops.chaos.history import Entry, Kind
from ops.verify import windows
from schemas.records import FINAL, State

SHOWN: Final = 3
SECOND_NS: Final = 1_000_000_000


@dataclass(slots=True)
class Ledger:
    """Counts of one run, or of several added up. Times are seconds; ``used`` is by lane."""

    runs: int = 0
    requests: int = 0
    accepted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    review: int = 0
    letters: int = 0
    overruled: int = 0
    calls: int = 0
    charges: int = 0
    most: dict[str, str] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    recovery_s: dict[str, float] = field(default_factory=dict)
    broken: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[str, Violation]] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken

    def add(self, name: str, evidence: Evidence, faults: Iterable[Entry], violations: Sequence[Violation]) -> None:
        """Count one run."""
        case = Case(evidence)
        states = Counter(row.state for row in evidence.rows.values())
        self.runs += 1
        self.requests += len(evidence.asked)
        self.accepted += len(case.expected())
        self.completed += states[State.COMPLETED]
        self.failed += states[State.FAILED]
        self.cancelled += states[State.CANCELLED]
        self.review += states[State.REVIEW]
        self.letters += len(set(evidence.stored_letters))
        self.overruled += sum(1 for each in evidence.asked if each.answer is Answer.ACCEPTED and case.overruled(each))
        self.calls += len(evidence.arrivals)
        self.charges += sum(1 for charge in evidence.charges if charge.approved)
        for lane, limit in evidence.limits.items():
            moments = [each.at_ns for each in evidence.arrivals if each.account == lane]
            if moments:
                most = windows.most(moments, limit.window_ns)
                self.most[f"{name}/{lane}"] = f"{most} of {limit.calls}"
        entries = list(faults)
        self.faults += Counter(entry.data["deed"] for entry in entries if entry.kind is Kind.FAULT)
        for kind, seconds in recoveries(evidence, entries).items():
            self.recovery_s[kind] = max(seconds, self.recovery_s.get(kind, 0.0))
        self.broken += Counter(each.promise for each in violations)
        self.violations += [(name, each) for each in violations]

    def lines(self) -> list[str]:
        """The table, for a person."""
        found = [f"{'fault':<28}{'times':>7}{'slowest recovery':>19}"]
        for kind, count in sorted(self.faults.items()):
            slowest = f"{self.recovery_s[kind]:.1f} s" if kind in self.recovery_s else "-"
            found.append(f"{kind:<28}{count:>7}{slowest:>19}")
        most = ", ".join(f"{lane} {said}" for lane, said in sorted(self.most.items()))
        found += [f"{'all':<28}{self.faults.total():>7}", ""]
        found.append(
            f"{self.requests:,} requests sent, {self.accepted:,} payments accepted: {self.completed:,} completed, "
            f"{self.failed:,} failed, {self.cancelled:,} cancelled, {self.review:,} in review; "
            f"{self.letters:,} dead letters"
        )
        found += [f"{self.calls:,} provider calls, {self.charges:,} charges; most calls in any window: {most}", ""]
        if self.overruled:
            found += [
                f"{self.overruled} accepted over HTTP under a used key that no store may have had, then refused",
                "",
            ]
        for promise in PROMISES:
            name = promise.__name__.replace("_", "-")
            found.append(f"{name:<28}{f'{self.broken[name]} BROKEN' if self.broken[name] else 'kept':>12}")
        for name in sorted(set(self.broken) - {promise.__name__.replace("_", "-") for promise in PROMISES}):
            found.append(f"{name:<28}{f'{self.broken[name]} BROKEN':>12}")
        seen: Counter[str] = Counter()
        for where, each in self.violations:
            seen[each.promise] += 1
            if seen[each.promise] <= SHOWN:
                found.append(f"  {where}: {each.promise}: {each.subject} {each.detail}")
        return found


def recoveries(evidence: Evidence, faults: Iterable[Entry]) -> dict[str, float]:
    """By kind of fault, the longest time from its end to a lane's next call, in seconds; where payments of it waited.

    Another fault may still be on then: this is how long nobody was served, not whose fault it was.
    """
    found: dict[str, float] = defaultdict(float)
    heals = [entry for entry in faults if entry.kind is Kind.HEAL]
    for lane, spans in _open(evidence).items():
        arrivals = sorted(each.at_ns for each in evidence.arrivals if each.account == lane)
        for entry in heals:
            place = bisect.bisect_left(arrivals, entry.at_ns)
            if place < len(arrivals) and any(begin <= entry.at_ns < end for begin, end in spans):
                kind = entry.data["deed"]
                found[kind] = max(found[kind], (arrivals[place] - entry.at_ns) / SECOND_NS)
    return dict(found)


def _open(evidence: Evidence) -> dict[str, list[tuple[int, int]]]:
    """By lane, when any accepted payment was not over yet, on the monotonic clock."""
    begun = {
        each.payment_id: each.answered_ns
        for each in evidence.asked
        if each.answer is Answer.ACCEPTED and not each.cancel and not each.bad
    }
    over: dict[str, int] = {}
    lanes: dict[str, str] = {}
    for event in evidence.events:
        if event.state in FINAL or event.state is State.REVIEW:
            at = min(evidence.moments(event.at_ms))
            over[event.payment_id] = min(at, over.get(event.payment_id, at))
            lanes[event.payment_id] = event.lane
    found: dict[str, list[tuple[int, int]]] = {}
    for lane in set(lanes.values()):
        both = [(at, over[each]) for each, at in begun.items() if lanes.get(each) == lane and over[each] > at]
        found[lane] = windows.busy([begin for begin, _ in both], [end for _, end in both])
    return found
