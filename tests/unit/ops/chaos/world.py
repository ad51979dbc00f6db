"""A healthy run in small, to be broken one promise at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ops.chaos.evidence import Answer, Arrival, Asked, Blind, Charge, Evidence, Letter, Limit, Origin, Skew, Told, Via
from schemas import topics
from schemas.records import EventType, PaymentEvent, State

LANE = "simulator"
S = 1_000_000_000
WALL_NS = 1_767_225_600 * S
"""The wall clock's epoch nanoseconds where the monotonic one is 0."""


def asked(number: int, **changes: Any) -> Asked:
    return Asked(
        **{
            "via": Via.HTTP, "payment_id": f"p{number}", "merchant_id": "acme", "key": f"k{number}",
            "body": f"b{number}", "amount_minor": 1000 + number, "currency": "USD", "answer": Answer.ACCEPTED,
            "answered_ns": number * S, **changes,
        }
    )  # fmt: skip


def event(payment_id: str, version: int, state: State, kind: EventType, at_ns: int, **changes: Any) -> PaymentEvent:
    number = int(payment_id[1:])
    return PaymentEvent(
        **{
            "type": kind, "version": version, "state": state, "payment_id": payment_id, "merchant_id": "acme",
            "idempotency_key": f"k{number}", "fingerprint": f"b{number}", "amount_minor": 1000 + number,
            "currency": "USD", "payment_method": "pm_approve", "lane": LANE,
            "accepted_at_ms": (WALL_NS + number * S) // 1_000_000, "at_ms": (WALL_NS + at_ns) // 1_000_000, **changes,
        }
    )  # fmt: skip


@dataclass
class Run:
    """Evidence that can still be changed; its payments are named p0, p1, ..., one a second."""

    asked: list[Asked] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    events: list[PaymentEvent] = field(default_factory=list)
    results: dict[str, Told] = field(default_factory=dict)
    rows: dict[str, Told] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    stored: list[Origin] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    blind: Blind = field(default_factory=Blind)
    skews: list[Skew] = field(default_factory=list)
    accepts_within_ns: int = 0
    calls_within_ns: int = 0
    healed_ns: int = 100 * S
    keys: bool = True

    def evidence(self) -> Evidence:
        return Evidence(
            asked=self.asked, arrivals=self.arrivals, charges=self.charges, events=self.events, results=self.results,
            rows=self.rows, letters=self.letters, stored_letters=self.stored, limits={LANE: Limit(2, keys=self.keys)},
            wall_ns=WALL_NS, healed_ns=self.healed_ns, leaks=self.leaks, blind=self.blind,
            skews=self.skews, accepts_within_ns=self.accepts_within_ns,
            calls_within_ns=self.calls_within_ns,
        )  # fmt: skip

    def payment(self, number: int, end: State, *, calls: int = 1, reason: str | None = None, **ask: Any) -> None:
        """A payment that was asked for at its second, called ``calls`` times from then on, and ended."""
        payment_id, begun = f"p{number}", number * S
        self.asked.append(asked(number, **ask))
        self.events.append(event(payment_id, 1, State.PENDING, EventType.STATE_CHANGED, begun))
        version = 1
        for call in range(calls):
            at_ns = begun + call * 2 * S
            self.arrivals.append(Arrival(at_ns + S // 100, LANE, "POST", payment_id, payment_id))
            state = end if call == calls - 1 else State.PENDING
            self.events += [
                event(payment_id, version + 1, State.PROCESSING, EventType.CALL_INTENDED, at_ns, attempt=call + 1),
                event(payment_id, version + 2, state, EventType.CALL_FINISHED, at_ns + S // 10, attempt=call + 1,
                      reason=reason if state is end else None),
            ]  # fmt: skip
            version += 2
        if not calls:
            version += 1
            self.events.append(event(payment_id, version, end, EventType.STATE_CHANGED, begun + S, reason=reason))
        told = Told(end, version, 1000 + number, "USD", reason)
        self.rows[payment_id] = told
        if end is State.REVIEW:
            self.letter((topics.lane_topic(LANE), 0, number), reason or "", payment_id)
        else:
            self.results[payment_id] = told
        if end is State.COMPLETED:
            self.charges.append(
                Charge(payment_id, payment_id, approved=True, amount_minor=1000 + number, currency="USD")
            )
        if end is State.FAILED and calls:
            self.charges.append(
                Charge(payment_id, payment_id, approved=False, amount_minor=1000 + number, currency="USD")
            )

    def letter(self, origin: Origin, reason: str, payment_id: str | None = None) -> None:
        self.letters.append(Letter(origin, reason, payment_id))
        self.stored.append(origin)


def healthy() -> Run:
    """Of each kind one: completed, retried, declined, cancelled, expired, in review; and what is no payment."""
    run = Run()
    run.payment(0, State.COMPLETED)
    run.payment(10, State.COMPLETED, calls=3)
    run.payment(20, State.FAILED, reason="insufficient_funds")
    run.payment(30, State.CANCELLED, calls=0, reason="cancelled-by-merchant")
    run.payment(40, State.FAILED, calls=0, reason="expired")
    run.payment(50, State.REVIEW, calls=2, reason="attempts-exhausted")
    run.payment(60, State.COMPLETED, via=Via.KAFKA, origin=(topics.COMMANDS, 1, 60))
    run.asked += [
        asked(0, answer=Answer.REPEATED),
        asked(0, body="other", amount_minor=7, answer=Answer.REFUSED),
        asked(70, answer=Answer.MAYBE),
        asked(71, answer=Answer.REFUSED, bad=True),
        asked(72, via=Via.KAFKA, origin=(topics.COMMANDS, 1, 72), bad=True),
        asked(60, via=Via.KAFKA, origin=(topics.COMMANDS, 1, 73), body="other", amount_minor=9),
        asked(60, via=Via.KAFKA, origin=(topics.COMMANDS, 1, 74)),
        asked(75, via=Via.KAFKA, origin=(topics.COMMANDS, 1, 75), aborted=True),
        asked(10, cancel=True, key=""),
    ]
    run.letter((topics.COMMANDS, 1, 72), "undecodable")
    run.letter((topics.COMMANDS, 1, 73), "idempotency-conflict")
    run.letters.append(run.letters[-1])  # written again after a crash: the same letter
    run.events += run.events[:3]
    return run


def changed(run: Run, payment_id: str, version: int, **changes: Any) -> None:
    run.events = [
        replace(each, **changes) if (each.payment_id, each.version) == (payment_id, version) else each
        for each in run.events
    ]
