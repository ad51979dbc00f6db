"""The limiter's promise, replayed from ``payments.events``: every call of a lane with the moment it was written.

Moments are microseconds on the limiter's clock. A call whose worker died before it could tell has none: it is counted,
and what it did to the provider's window is not known from here; the provider's own log tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ops.verify import windows
from schemas.records import FINAL, EventType, PaymentEvent, State

DEEP: Final = 2
"""A lane has work to spare while so many times its limit wait that were never called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a lane did: times in milliseconds, ``used`` the share of the permitted rate while payments waited."""

    lane: str
    limit: int
    window_ms: int
    calls: int
    unknown: int
    without_intent: int
    most: int
    over: int
    tightest_ms: float | None
    used: float | None
    busy_ms: int
    longest_pause_ms: float

    @property
    def holds(self) -> bool:
        """Whether no window was over the limit and every call was announced before it was made."""
        return self.over == 0 and self.without_intent == 0 and self.most <= self.limit

    def line(self) -> str:
        """One line for a person."""
        said = f"lane {self.lane}: {self.calls:,} calls, at most {self.most} in any {self.window_ms} ms"
        said += f" (limit {self.limit})"
        if self.tightest_ms is not None:
            said += f", call i to i+{self.limit} never under {self.tightest_ms:.1f} ms"
        if self.used is not None:
            said += f", {self.used:.1%} of the permitted rate used in {self.busy_ms / 1000:.0f} s of backlog"
        if self.unknown:
            said += f", {self.unknown} calls of which the moment is not known"
        if self.over:
            said += f", {self.over} CALLS OVER THE LIMIT"
        if self.without_intent:
            said += f", {self.without_intent} CALLS WITHOUT AN INTENT"
        return said


@dataclass(slots=True)
class _Payment:
    """What is kept of one payment while its events come; versions of intents and outcomes as sets of bits."""

    intents: int = 0
    outcomes: int = 0
    unsent: int = 0
    accepted_us: int | None = None
    left_us: int | None = None


@dataclass(slots=True)
class Calls:
    """Takes a lane's events, each as often as it stands on the topic and in any order between payments."""

    lane: str
    limit: int
    window_ms: int
    _unknown: int = 0
    _moments: list[int] = field(default_factory=list)
    _payments: dict[bytes, _Payment] = field(default_factory=dict)

    def add(self, event: PaymentEvent) -> None:
        """Take one event; those of other lanes, and those that were taken before, change nothing."""
        if event.lane != self.lane:
            return
        found = self._payments.setdefault(bytes.fromhex(event.payment_id.replace("-", "")), _Payment())
        bit = 1 << event.version
        if event.type is EventType.CALL_INTENDED:
            found.intents |= bit
            return
        if event.type is EventType.STATE_CHANGED:
            self._waits(found, event)
            return
        if event.type is EventType.CANCEL_REFUSED or (found.outcomes | found.unsent) & bit:
            return
        if event.type is EventType.CALL_NOT_SENT:
            found.unsent |= bit
            return
        if event.sent_at_us is None:
            found.unsent |= bit
            self._unknown += event.outcome == "unknown"
            return
        found.outcomes |= bit
        self._moments.append(event.sent_at_us)
        found.left_us = min(event.sent_at_us, found.left_us or event.sent_at_us)

    def report(self) -> Report:
        """What these calls did."""
        window, values = self.window_ms * 1000, self._payments.values()
        arrivals = [each.accepted_us for each in values if each.accepted_us is not None]
        end = max([*self._moments, *(each.left_us or 0 for each in values)], default=0)
        leaves = [min(each.left_us or end, end) for each in values if each.accepted_us is not None]
        pairs = [(begin, leave) for begin, leave in zip(arrivals, leaves, strict=True) if leave > begin]
        spans = windows.busy([begin for begin, _ in pairs], [leave for _, leave in pairs], self.limit * DEEP)
        tightest = windows.tightest(self._moments, self.limit)
        return Report(
            lane=self.lane,
            limit=self.limit,
            window_ms=self.window_ms,
            calls=len(self._moments),
            unknown=self._unknown + sum(_open(each) for each in values),
            without_intent=sum((each.outcomes & ~(each.intents << 1)).bit_count() for each in values),
            most=windows.most(self._moments, window),
            over=windows.over(self._moments, self.limit, window),
            tightest_ms=None if tightest is None else tightest / 1000,
            used=windows.used(self._moments, spans, self.limit, window),
            busy_ms=sum(end - begin for begin, end in spans) // 1000,
            longest_pause_ms=windows.longest_pause(self._moments, spans) / 1000,
        )

    @staticmethod
    def _waits(found: _Payment, event: PaymentEvent) -> None:
        if event.state is State.PENDING and event.version == 1:
            found.accepted_us = event.at_ms * 1000
        elif event.state in FINAL or event.state is State.REVIEW:
            found.left_us = min(event.at_ms * 1000, found.left_us or event.at_ms * 1000)


def _open(found: _Payment) -> int:
    """Calls that were announced and of which nothing more is known: in hand, or their worker just died."""
    return (found.intents << 1 & ~(found.outcomes | found.unsent)).bit_count()
