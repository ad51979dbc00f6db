"""When a retry is due, and what becomes of a retry topic's records. Pure: both clocks and the lanes are passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ops import trace
from ops.kafka.message import Message
from schemas import codec, topics
from schemas.records import PaymentTask
from streams import dead_letter

MARGIN_S: Final = 1.0
LONGEST_EXTRA_S: Final = 60.0
"""How much longer than its tier's delay a record can ask to be held."""


class Received(Protocol):
    """A record as the consumer hands it over; ``timestamp`` is the producer's, in epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def longest_wait_s(tier_s: float, not_before_ms: int, stamped_ms: int) -> float:
    """How long a record may be held after it was first seen, whatever the wall clock says meanwhile.

    The wait that was asked for is ``not_before - timestamp``, both read from the producer's clock, or the tier's delay
    if that is longer: that much time has passed for certain when it has passed here since the record was seen, so the
    bound is never early. A wall clock set back by an hour holds nobody for an hour; an absurd ``not_before`` neither.
    """
    asked_s = (not_before_ms - stamped_ms) / 1000
    return min(max(asked_s, tier_s), tier_s + LONGEST_EXTRA_S) + MARGIN_S


@dataclass(frozen=True, slots=True)
class Hold:
    """A head that is not due. ``until`` is the monotonic moment past which it is not held, whatever the wall says."""

    not_before_ms: int
    until: float

    def left_s(self, now_ms: int, now: float) -> float:
        """Seconds to wait yet; 0 is due."""
        return max(0.0, min((self.not_before_ms - now_ms) / 1000, self.until - now))


@dataclass(frozen=True, slots=True)
class Seen:
    """Records of a partition up to ``upto`` were first seen at the monotonic moment ``at``, or before."""

    upto: int
    at: float


@dataclass(frozen=True, slots=True)
class Step:
    """One record of a retry topic that ends here: sent on as ``message``. ``reason`` is set where that is a letter."""

    record: Received
    message: Message
    task: PaymentTask | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with one partition's records: do ``steps``; hold what follows from offset ``hold_at`` on."""

    steps: tuple[Step, ...]
    hold: Hold | None = None
    hold_at: int = 0


def plan(  # noqa: PLR0913 - pure: all it needs to know comes in
    records: Sequence[Received],
    *,
    tier_s: float,
    lanes: frozenset[str],
    seen: Seen,
    now_ms: int,
    now: float,
) -> Plan:
    """Decide on one partition's records, in offset order, up to the first that is not due. Pure."""
    steps: list[Step] = []
    for record in records:
        try:
            task = codec.decode(record.value, PaymentTask)
        except codec.DecodeError as error:
            steps.append(give_up(record, "undecodable", str(error), now_ms))
            continue
        if task.lane not in lanes:
            steps.append(give_up(record, "unknown-lane", "this gateway has no such lane", now_ms, task))
            continue
        since = seen.at if record.offset <= seen.upto else now
        hold = Hold(task.not_before_ms, since + longest_wait_s(tier_s, task.not_before_ms, record.timestamp))
        if hold.left_s(now_ms, now) > 0:
            return Plan(tuple(steps), hold, record.offset)
        due = Message(topics.due_topic(task.lane), task.payment_id.encode(), record.value, tuple(record.headers))
        steps.append(Step(record, due, task))
    return Plan(tuple(steps))


def give_up(record: Received, reason: str, detail: str, now_ms: int, task: PaymentTask | None = None) -> Step:
    """The dead letter of a record of a retry topic, keyed by its payment where that is known."""
    letter = dead_letter.letter(
        reason=reason,
        detail=detail,
        stage="delay",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        original=record.value or b"",
        payment_id=task.payment_id if task else None,
        merchant_id=task.merchant_id if task else None,
        lane=task.lane if task else None,
        attempts=max(0, task.attempt - 1) if task else 0,
        at_ms=now_ms,
    )
    message = dead_letter.message(letter, key=task.payment_id.encode() if task else None)
    return Step(record, trace.marked(message, trace.of(record.headers)), task, reason)
