"""The judge: evidence in, broken promises out. Pure; it trusts nobody's word but compares what several say.

Each promise is one function; :func:`check` runs them all. A payment is expected where some client was told that it is
accepted; one that may have been taken (``MAYBE``) need not exist, but where it does it must be as right as the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ops.chaos.evidence import CLOCKS_NS, MS, Answer, Arrival, Asked, Evidence, Origin, Via
from ops.verify import windows
from schemas.records import FINAL, EventType, PaymentEvent, State

CONFLICT: Final = "idempotency-conflict"
WRITTEN_NS: Final = 30 * 1_000_000_000
"""After that a payment's first row is in PostgreSQL, where nothing is attacked."""
CALLS_MAX: Final = 8
"""Calls that one payment may take of what the lane is allowed: the attempts that it has by the policy."""
DEFECT: Final = "internal-error"
"""A stage that fails after it has told one reason adds this one."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, by whom or where, and how."""

    promise: str
    subject: str
    detail: str


@dataclass(slots=True)
class Case:
    """The evidence, indexed by payment."""

    evidence: Evidence
    creates: dict[str, list[Asked]] = field(default_factory=dict)
    events: dict[str, list[PaymentEvent]] = field(default_factory=dict)
    conflicts: set[Origin] = field(default_factory=set)
    contradicted: set[str | None] = field(default_factory=set)
    arrivals: list[Arrival] = field(default_factory=list)
    """The requests that tell whose they are. One to a provider without keys tells that in its body alone, which may
    never have come; it counts towards the limit all the same.
    """

    def __post_init__(self) -> None:
        letters = [letter for letter in self.evidence.letters if letter.reason == CONFLICT]
        self.conflicts = {letter.origin for letter in letters}
        self.contradicted = {letter.payment_id for letter in letters}
        keyless = {account for account, limit in self.evidence.limits.items() if not limit.keys}
        self.arrivals = [each for each in self.evidence.arrivals if each.payment_id or each.account not in keyless]
        for asked in self.evidence.asked:
            if not asked.bad and not asked.cancel and not asked.aborted:
                self.creates.setdefault(asked.payment_id, []).append(asked)
        for event in self.evidence.events:
            self.events.setdefault(event.payment_id, []).append(event)

    def expected(self) -> dict[str, list[Asked]]:
        """The payments of which somebody was told that they are accepted."""
        return {
            payment_id: all_of
            for payment_id, all_of in self.creates.items()
            if any(self.taken(each) or self.repeats(each) for each in all_of)
        }

    def taken(self, asked: Asked) -> bool:
        """Whether this was accepted, and not only as a record that is a conflict's dead letter."""
        return asked.answer is Answer.ACCEPTED and asked.origin not in self.conflicts and not self.overruled(asked)

    def overruled(self, asked: Asked) -> bool:
        """Whether HTTP accepted another body under a used key that it may not have known, and the stream refused it.

        Redis may lack a key that it has forgotten since the first request with it, or was not told of then, or cannot
        be asked for now. PostgreSQL may lack its row while nothing is written, and for a while after the first request.
        """
        if asked.via is not Via.HTTP or asked.payment_id not in self.contradicted:
            return False
        row = self.evidence.rows.get(asked.payment_id)
        if row is None or (asked.amount_minor, asked.currency) == (row.amount_minor, row.currency):
            return False
        blind, now = self.evidence.blind, asked.answered_ns
        creates = self.creates.get(asked.payment_id, ())
        first = min((each.answered_ns for each in creates if each.answer is not Answer.REFUSED), default=now)
        forgotten = any(begin <= now and first <= end for begin, end in blind.lost)
        untold = any(begin <= moment <= end for begin, end in blind.deaf for moment in (first, now))
        young = now - first <= WRITTEN_NS or any(begin <= now <= end for begin, end in blind.unwritten)
        return (forgotten or untold) and young

    def repeats(self, asked: Asked) -> bool:
        """Whether its client was told that the payment is there already: a promise as good as an acceptance."""
        return asked.answer is Answer.REPEATED and asked.via is Via.HTTP

    def known(self) -> set[str]:
        """Every payment of which there is a trace anywhere inside."""
        found = self.evidence
        called = {each.payment_id for each in self.arrivals} | {each.payment_id for each in found.charges}
        return called | {*self.events, *found.results, *found.rows}


def nothing_lost(case: Case) -> Iterator[tuple[str, str]]:
    """Every accepted payment has one end: a final state, or REVIEW with a dead letter that says why."""
    found = case.evidence
    reviewed = {letter.payment_id for letter in found.letters if letter.reason}
    for payment_id in case.expected():
        row = found.rows.get(payment_id)
        if row is None:
            yield payment_id, "accepted, and has no row"
        elif row.state is State.REVIEW:
            if payment_id not in reviewed:
                yield payment_id, "in REVIEW without a dead letter"
        elif row.state not in FINAL:
            yield payment_id, f"stuck in {row.state}"
        elif payment_id not in found.results:
            yield payment_id, f"{row.state} in PostgreSQL, and not in payments.results"


def one_story(case: Case) -> Iterator[tuple[str, str]]:
    """Topic and PostgreSQL say the same of each payment, and of nobody else."""
    found = case.evidence
    for payment_id in case.known():
        row, result, events = found.rows.get(payment_id), found.results.get(payment_id), case.events.get(payment_id, [])
        newest = max(events, key=lambda event: event.version, default=None)
        if row is None or newest is None:
            yield payment_id, "has a trace, and not both events and a row"
            continue
        if (row.state, row.version) != (newest.state, newest.version):
            yield payment_id, f"{row.state} v{row.version} in PostgreSQL, {newest.state} v{newest.version} in events"
        if row.state in FINAL and result is not None and (result.state, result.amount_minor, result.currency) != (
            row.state, row.amount_minor, row.currency,
        ):  # fmt: skip
            yield payment_id, f"{row.state} in PostgreSQL, {result.state} in payments.results, or another amount"
        if row.state not in FINAL and result is not None:
            yield payment_id, f"{row.state} in PostgreSQL, and {result.state} in payments.results"
        if payment_id not in case.creates:
            yield payment_id, "nobody asked for it"


def versions_rise(case: Case) -> Iterator[tuple[str, str]]:
    """Of each version one event, none left out, and no final state is ever left."""
    for payment_id, events in case.events.items():
        by_version: dict[int, PaymentEvent] = {}
        for event in events:
            if _said(by_version.setdefault(event.version, event)) != _said(event):
                yield payment_id, f"two events of version {event.version}"
        lacking = set(range(1, max(by_version) + 1)) - set(by_version)
        if lacking:
            yield payment_id, f"no event of version {min(lacking)}"
        final: State | None = None
        for _, event in sorted(by_version.items()):
            if final is not None and event.state is not final:
                yield payment_id, f"{final}, then {event.state}"
            if event.state in FINAL:
                final = event.state


def charged_once(case: Case) -> Iterator[tuple[str, str]]:
    """At most one charge a payment, under one key for ever."""
    charges = Counter(charge.payment_id for charge in case.evidence.charges if charge.approved)
    for payment_id, count in charges.items():
        if count > 1:
            yield payment_id, f"charged {count} times"
    keys: dict[str, set[str]] = defaultdict(set)
    for arrival in case.arrivals:
        keys[arrival.payment_id].add(arrival.key)
    for payment_id, used in keys.items():
        if len(used) > 1:
            yield payment_id, f"called under {len(used)} idempotency keys"


def asked_once(case: Case) -> Iterator[tuple[str, str]]:
    """A provider that knows no keys gets a payment's request once, whatever it answered."""
    keyless = {account for account, limit in case.evidence.limits.items() if not limit.keys}
    posts = Counter(
        arrival.payment_id for arrival in case.arrivals if arrival.method == "POST" and arrival.account in keyless
    )
    for payment_id, count in posts.items():
        if count > 1:
            yield payment_id, f"sent {count} times to a provider without keys"


def books_agree(case: Case) -> Iterator[tuple[str, str]]:
    """What we call COMPLETED the provider has charged, with this amount and currency; what we call otherwise, not."""
    found = case.evidence
    approved = {charge.payment_id: charge for charge in found.charges if charge.approved}
    called = {arrival.payment_id for arrival in case.arrivals}
    for payment_id, row in found.rows.items():
        charge = approved.get(payment_id)
        if row.state is State.COMPLETED and charge is None:
            yield payment_id, "COMPLETED, and not charged"
        elif row.state in {State.FAILED, State.CANCELLED} and charge is not None:
            yield payment_id, f"{row.state}, and charged"
        elif charge is not None and (charge.amount_minor, charge.currency) != (row.amount_minor, row.currency):
            yield payment_id, f"charged {charge.amount_minor} {charge.currency}, not {row.amount_minor} {row.currency}"
        if payment_id in called and (row.state is State.CANCELLED or row.reason == "expired"):
            yield payment_id, f"{row.reason or row.state}, and called"
    for payment_id in approved.keys() - found.rows.keys():
        yield payment_id, "charged, and unknown to us"


def as_asked(case: Case) -> Iterator[tuple[str, str]]:
    """One body a key: the payment is what its accepted request said, and no other body was accepted."""
    for payment_id, all_of in case.creates.items():
        accepted = [each for each in all_of if case.taken(each)]
        if len({each.body for each in accepted}) > 1:
            yield payment_id, "two bodies accepted under one key"
        repeated = {each.body for each in all_of if each.answer is Answer.REPEATED}
        if accepted and repeated - {each.body for each in accepted} - _maybes(all_of):
            yield payment_id, "a body that was never accepted is called a repeat"
        row = case.evidence.rows.get(payment_id)
        if row is not None and not any((each.amount_minor, each.currency) == (row.amount_minor, row.currency)
                                       for each in all_of if each.answer is not Answer.REFUSED):  # fmt: skip
            yield payment_id, f"{row.amount_minor} {row.currency} is not what was asked for"
    for payment_id in case.known() & set(case.creates):
        if all(each.answer is Answer.REFUSED for each in case.creates[payment_id]):
            yield payment_id, "refused, and taken all the same"
    aborted = {each.payment_id for each in case.evidence.asked if each.aborted} - set(case.creates)
    for payment_id in aborted & case.known():
        yield payment_id, "its transaction was aborted, and it was taken all the same"


def limit_kept(case: Case) -> Iterator[tuple[str, str]]:
    """In every window on the provider's clock no more calls than it allows."""
    by_account: dict[str, list[int]] = defaultdict(list)
    for arrival in case.evidence.arrivals:
        by_account[arrival.account].append(arrival.at_ns)
    for account, moments in by_account.items():
        limit = case.evidence.limits.get(account)
        if limit is None:
            yield account, "called, and no limit is known"
        elif over := windows.over(moments, limit.calls, limit.window_ns):
            shortest = (windows.tightest(moments, limit.calls) or 0) / MS
            yield account, f"{over} windows over the limit; call i to i+{limit.calls} after {shortest:.3f} ms"


def intended_first(case: Case) -> Iterator[tuple[str, str]]:
    """Each call was announced, durably, before it was made: the n-th arrival has n intents before it."""
    arrivals: dict[str, list[int]] = defaultdict(list)
    for arrival in case.arrivals:
        arrivals[arrival.payment_id].append(arrival.at_ns)
    for payment_id, moments in arrivals.items():
        told = {event.version: event.at_ms for event in case.events.get(payment_id, [])
                if event.type is EventType.CALL_INTENDED}.values()  # fmt: skip
        intents = [min(case.evidence.moments(at_ms)) for at_ms in told]
        for number, at_ns in enumerate(sorted(moments), 1):
            if sum(1 for intent in intents if intent <= at_ns + CLOCKS_NS) < number:
                yield payment_id, f"call {number} has no intent before it"
                break


def bad_input_told(case: Case) -> Iterator[tuple[str, str]]:
    """Every record that cannot become a payment is a dead letter with a reason, one an origin, in Kafka and SQL."""
    found = case.evidence
    letters: dict[Origin, set[str]] = defaultdict(set)
    for letter in found.letters:
        letters[letter.origin].add(letter.reason)
    for asked in found.asked:
        if asked.via is Via.KAFKA and asked.bad and not asked.aborted and asked.answer is Answer.ACCEPTED:
            if asked.origin not in letters:
                yield _named(asked.origin), "a bad record without a dead letter"
        elif asked.via is Via.HTTP and asked.bad and asked.answer in {Answer.ACCEPTED, Answer.REPEATED}:
            yield asked.key, "a bad request was accepted"
    stored = Counter(found.stored_letters)
    for origin, reasons in letters.items():
        if len(reasons - {DEFECT}) > 1 or "" in reasons:
            yield _named(origin), f"{len(reasons)} reasons, or none, for one record"
        if stored[origin] != 1:
            yield _named(origin), f"stands {stored[origin]} times in PostgreSQL"


def conserved(case: Case) -> Iterator[tuple[str, str]]:
    """What was accepted is what ended, by count and by amount in each currency."""
    found = case.evidence
    ins: Counter[str] = Counter()
    outs: Counter[str] = Counter()
    for payment_id, all_of in case.expected().items():
        first = next((each for each in all_of if case.taken(each)), None) or next(filter(case.repeats, all_of))
        ins[first.currency] += first.amount_minor
        row = found.rows.get(payment_id)
        if row is not None and (row.state in FINAL or row.state is State.REVIEW):
            outs[row.currency] += row.amount_minor
    for currency in ins.keys() | outs.keys():
        if ins[currency] != outs[currency]:
            yield currency, f"{ins[currency]} accepted, {outs[currency]} ended"


def no_card_numbers(case: Case) -> Iterator[tuple[str, str]]:
    """Planted card numbers are nowhere."""
    for place in case.evidence.leaks:
        yield place, "holds a planted card number"


def in_time(case: Case) -> Iterator[tuple[str, str]]:
    """All is over soon after the last heal: the calls that were then still made, at the permitted rate, and a minute.

    Calls count up to their payment's end, and of one payment no more than CALLS_MAX.
    """
    found = case.evidence
    ends: dict[str, int] = {}
    lanes: dict[str, str] = {}
    for payment_id in case.expected():
        done = [
            event for event in case.events.get(payment_id, []) if event.state in FINAL or event.state is State.REVIEW
        ]
        if done:
            ends[payment_id] = min(min(found.moments(event.at_ms)) for event in done)
            lanes[payment_id] = done[0].lane
    after: Counter[str] = Counter(
        each.payment_id
        for each in found.arrivals
        if each.payment_id in ends and found.healed_ns < each.at_ns <= ends[each.payment_id]
    )
    for account, limit in found.limits.items():
        late = [payment_id for payment_id, at in ends.items() if lanes[payment_id] == account and at > found.healed_ns]
        calls = sum(min(max(1, after[payment_id]), CALLS_MAX) for payment_id in late)
        allowed_ns = calls * limit.window_ns // limit.calls + found.grace_ns
        for payment_id in late:
            if (took := ends[payment_id] - found.healed_ns) > allowed_ns:
                yield payment_id, f"ended {took / 1e9:.1f} s after the last heal, {allowed_ns / 1e9:.1f} s are allowed"


def goes_on_accepting(case: Case) -> Iterator[tuple[str, str]]:
    """Where the case says so: from one create that HTTP takes to the next no longer than that, whatever is attacked.

    To the last answer to any request over HTTP, too: creates that stop for good are no exception.
    """
    within_ns = case.evidence.accepts_within_ns
    if not within_ns:
        return
    asked = sorted((each for each in case.evidence.asked if each.via is Via.HTTP), key=lambda each: each.answered_ns)
    since = asked[0].answered_ns if asked else 0
    for each in asked:
        late = each.answered_ns - since > within_ns
        if late:
            yield each.payment_id, f"no create was taken for {(each.answered_ns - since) / 1e9:.1f} s"
        if late or (each.answer in {Answer.ACCEPTED, Answer.REPEATED} and not each.cancel and not each.bad):
            since = each.answered_ns


def goes_on_calling(case: Case) -> Iterator[tuple[str, str]]:
    """Where the case says so: nobody waits longer than that for a first call while the lane makes none at all."""
    found, within_ns = case.evidence, case.evidence.calls_within_ns
    if not within_ns:
        return
    last: dict[str, int] = {}
    called: set[str] = set()
    for arrival in sorted(found.arrivals, key=lambda each: each.at_ns):
        begun = [event.at_ms for event in case.events.get(arrival.payment_id, []) if event.version == 1]
        if begun and arrival.payment_id not in called:
            since = max(min(begun) * MS - found.wall_ns, last.get(arrival.account, 0))
            if arrival.at_ns - since > within_ns:
                yield (
                    arrival.payment_id,
                    f"waited while {arrival.account} called nobody for {(arrival.at_ns - since) / 1e9:.1f} s",
                )
        called.add(arrival.payment_id)
        last[arrival.account] = arrival.at_ns


PROMISES: Final[tuple[Callable[[Case], Iterable[tuple[str, str]]], ...]] = (
    nothing_lost, one_story, versions_rise, charged_once, asked_once, books_agree, as_asked, limit_kept, intended_first,
    bad_input_told, conserved, no_card_numbers, in_time, goes_on_accepting, goes_on_calling,
)  # fmt: skip


def check(evidence: Evidence) -> list[Violation]:
    """Every broken promise, in the order of PROMISES."""
    case = Case(evidence)
    return [
        Violation(promise.__name__.replace("_", "-"), subject, detail)
        for promise in PROMISES
        for subject, detail in promise(case)
    ]


def _said(event: PaymentEvent) -> tuple[object, ...]:
    """What an event says of the payment's course; what its merchant said stands in the create's events only."""
    return (
        event.type, event.state, event.attempt, event.call, event.outcome, event.reason, event.provider_charge_id,
        event.at_ms, event.sent_at_us, event.retry_at_ms,
    )  # fmt: skip


def _maybes(all_of: Iterable[Asked]) -> set[str]:
    return {each.body for each in all_of if each.answer is Answer.MAYBE}


def _named(origin: Origin | None) -> str:
    return "/".join(map(str, origin)) if origin else "?"
