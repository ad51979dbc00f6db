"""What dispatch publishes for a ledger entry: its event, the result, the retry, the dead letter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from prometheus_client import Counter

from ops.failpoints import Failpoint
from ops.kafka.message import Message
from schemas import codec, topics
from schemas.records import EventType, PaymentTask, State
from streams import dead_letter, payment
from streams.payment import Entry

LETTERS = Counter("kifiya_dispatch_dead_letters", "Dead letters of dispatch, by reason.", ["lane", "reason"])

AFTER_EVENT: Final = Failpoint("dispatch.after-event")
AFTER_RETRY: Final = Failpoint("dispatch.after-retry")
AFTER_LETTER: Final = Failpoint("dispatch.after-letter")

Publish = Callable[[list[Message]], Awaitable[None]]


@dataclass(slots=True)
class Outbox:
    """The publications of one lane's dispatch."""

    lane: str
    publish: Publish
    now_ms: Callable[[], int]

    async def all_of(self, task: PaymentTask, entry: Entry) -> None:
        """Publish all that an entry stands for. Idempotent: consumers key on (payment_id, version) and on attempts."""
        key = task.payment_id.encode()
        messages = [Message(topics.EVENTS, key, codec.encode(payment.event_of(task, entry)))]
        result = payment.result_of(task, entry)
        if result is not None:
            messages.append(Message(topics.RESULTS, key, codec.encode(result)))
        await self.publish(messages)
        await AFTER_EVENT.reach()
        retry = payment.retry_of(task, entry)
        if retry is not None:  # only now: once it runs, nobody would come back to this entry's event
            await self.publish([Message(topics.retry_topic(retry[0]), key, codec.encode(retry[1]))])
            await AFTER_RETRY.reach()
        if entry.state is State.REVIEW and entry.review_origin is not None:
            await self.letter(task, entry.review_origin, entry.reason or "review", entry.attempt, entry.detail or "")

    async def tell_first(self, task: PaymentTask, found: Entry | None) -> None:
        """Publish the event of an entry that is about to be overwritten, where another record's handling wrote it.

        That one may have died before it said so; all others are told before anything that follows from them can come.
        """
        if found is not None and found.event in (EventType.CANCEL_REFUSED, EventType.CALL_NOT_SENT):
            await self.event(task, found)

    async def event(self, task: PaymentTask, entry: Entry) -> None:
        """Publish an entry's event only."""
        event = payment.event_of(task, entry)
        await self.publish([Message(topics.EVENTS, task.payment_id.encode(), codec.encode(event))])

    async def letter(self, task: PaymentTask, origin: str, reason: str, attempts: int, detail: str = "") -> None:
        """One letter an origin: a review that is published again is the same letter, whichever record led to it."""
        LETTERS.labels(self.lane, reason).inc()
        topic, partition, offset = origin.rsplit("/", 2)
        letter = dead_letter.letter(
            reason=reason,
            detail=detail,
            stage="dispatch",
            topic=topic,
            partition=int(partition),
            offset=int(offset),
            original=codec.encode(replace(task, attempt=max(attempts, 1))),
            payment_id=task.payment_id,
            merchant_id=task.merchant_id,
            lane=task.lane,
            attempts=attempts,
            at_ms=self.now_ms(),
        )
        key = None if reason == "fingerprint-conflict" else task.payment_id.encode()
        await self.publish([dead_letter.message(letter, key=key)])
        await AFTER_LETTER.reach()
