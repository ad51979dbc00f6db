"""What a run leaves behind, in the shape the checker takes: plain records, no connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from schemas.records import PaymentEvent, State


class Answer(StrEnum):
    """What a client knows of what it asked for."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    REFUSED = "refused"
    MAYBE = "maybe"


class Via(StrEnum):
    """The way in."""

    HTTP = "http"
    KAFKA = "kafka"


Origin = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One command as its client sent it, and what came back; money is minor units.

    ``ACCEPTED`` over Kafka means: acknowledged by the broker, which for a bad record or another body under a used key
    is no promise of a payment but of a dead letter. ``aborted``: sent in a transaction that was aborted.
    """

    via: Via
    payment_id: str
    merchant_id: str
    key: str
    body: str
    amount_minor: int
    currency: str
    answer: Answer
    answered_ns: int
    origin: Origin | None = None
    cancel: bool = False
    bad: bool = False
    aborted: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it reached the provider: when its first byte came, and what it was about."""

    at_ns: int
    account: str
    method: str
    key: str
    payment_id: str


@dataclass(frozen=True, slots=True)
class Charge:
    """A line of the provider's own books."""

    payment_id: str
    key: str
    approved: bool
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Told:
    """A result, or a payment's row in PostgreSQL."""

    state: State
    version: int
    amount_minor: int
    currency: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, by the record it is about."""

    origin: Origin
    reason: str
    payment_id: str | None


@dataclass(frozen=True, slots=True)
class Limit:
    """What one provider account allows: calls in any window; ``keys``: whether a second request under a key is safe."""

    calls: int
    window_ns: int = 1_000_000_000
    keys: bool = True


@dataclass(frozen=True, slots=True)
class Skew:
    """A span in which some role's wall clock was ahead by so much, or behind. Monotonic nanoseconds."""

    begin_ns: int
    end_ns: int
    ahead_ns: int


Span = tuple[int, int]
"""From one monotonic moment to another, nanoseconds."""


@dataclass(frozen=True, slots=True)
class Blind:
    """When the ingress may not have known a key.

    ``lost``: Redis forgot what it had; ``deaf``: it was not told, or could not be asked; ``unwritten``: rows were not
    written, or PostgreSQL could not be asked.
    """

    lost: Sequence[Span] = ()
    deaf: Sequence[Span] = ()
    unwritten: Sequence[Span] = ()


GRACE_NS: Final = 60 * 1_000_000_000
MS: Final = 1_000_000
CLOCKS_NS: Final = 5 * MS
"""How far two readings of this machine's clocks may be apart: wall clocks are read in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All of a run. ``wall_ns`` is what to add to a monotonic moment to get the wall clock's.

    ``letters`` holds every dead letter as often as it stands on the topic; ``stored_letters`` those in PostgreSQL.
    ``healed_ns`` is when the last fault ended; ``leaks`` names the places where a planted card number was found.
    ``blind``: what may have kept a used key from the ingress. ``skews``: when some role's clock was wrong.
    ``accepts_within_ns``: what the case promises of HTTP; 0: nothing; ``calls_within_ns``: the same of a lane's calls.
    """

    asked: Sequence[Asked]
    arrivals: Sequence[Arrival]
    charges: Sequence[Charge]
    events: Sequence[PaymentEvent]
    results: Mapping[str, Told]
    rows: Mapping[str, Told]
    letters: Sequence[Letter]
    stored_letters: Sequence[Origin]
    limits: Mapping[str, Limit]
    wall_ns: int = 0
    healed_ns: int = 0
    leaks: Sequence[str] = field(default_factory=tuple)
    blind: Blind = Blind()
    skews: Sequence[Skew] = field(default_factory=tuple)
    accepts_within_ns: int = 0
    calls_within_ns: int = 0
    grace_ns: int = GRACE_NS

    def moments(self, at_ms: int) -> list[int]:
        """What a wall clock's reading may have been in monotonic nanoseconds.

        As it is; and by each clock that was wrong just then.
        """
        read = at_ms * MS - self.wall_ns
        wrong = [
            read - each.ahead_ns
            for each in self.skews
            if each.begin_ns - CLOCKS_NS <= read - each.ahead_ns <= each.end_ns + CLOCKS_NS
        ]
        return [read, *wrong]
