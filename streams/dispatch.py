"""DISPATCH: calls the provider of one lane, a few calls in hand per partition of each queue, and settles the answers.

Reads ``payments.lane.<lane>`` and its lower levels, ``.due`` and ``.cancel``; writes the ledger, then events, results,
retries, dead letters. A record is acked only after the broker has acked all that follows from it, and from those before
it. One payment's records take turns by its lock. Midway crash: before the intent is durable the task runs anew; after
it the call counts as UNKNOWN and the provider is asked; after the outcome the ledger publishes again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from ops.failpoints import Failpoint
from ops.telemetry import logger
from schemas import topics
from schemas.records import PaymentTask, State
from streams import backoff, payment
from streams.breaker import Breaker
from streams.errors import ArchiveAway, LimiterUnavailable, Overtaken, PermitExpired
from streams.lead import Lead
from streams.limiter.port import Limiter, Permit
from streams.locks import Locks
from streams.origin import Origin
from streams.outbox import Outbox
from streams.payment import Call, Entry, Retry, Rules, Step
from streams.providers.port import Outcome, OutcomeKind, Provider
from streams.queues import Queue
from streams.spread import Spread
from streams.stores.archive import Archive, MemoryArchive
from streams.stores.ledger import Ledger
from streams.throttle import Turnstile

CALLS = Counter("kifiya_provider_calls", "Provider calls by outcome.", ["lane", "call", "outcome"])
NOT_SENT = Counter("kifiya_permits_not_used", "Permits that came too late or for nothing.", ["lane", "why"])
STEPS = Counter("kifiya_dispatch_tasks", "Tasks by what was done with them.", ["lane", "step"])
RETRIES = Counter("kifiya_retries", "Retries scheduled, by tier.", ["lane", "tier"])
FINALS = Counter("kifiya_payments_final", "Payments that became final, by state.", ["lane", "state"])
NOT_LOOKED_UP = Counter("kifiya_archive_not_asked", "First calls made while the archive was away.", ["lane"])
CALL_SECONDS = Histogram("kifiya_provider_call_seconds", "Duration of a provider call.", ["lane", "call"])
PERMIT_WAIT = Histogram(
    "kifiya_permit_wait_seconds", "Wait for a permit.", ["lane"], buckets=(0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)
)
BREAKER_OPEN = Gauge("kifiya_breaker_open", "1 while the lane's breaker holds calls back.", ["lane"])

BEFORE_INTENT: Final = Failpoint("dispatch.before-intent")
AFTER_INTENT: Final = Failpoint("dispatch.after-intent")
AFTER_INTENT_TOLD: Final = Failpoint("dispatch.after-intent-told")
BEFORE_REQUEST: Final = Failpoint("dispatch.before-request")
AFTER_ANSWER: Final = Failpoint("dispatch.after-answer")
AFTER_ENTRY: Final = Failpoint("dispatch.after-entry")
AFTER_CANCEL: Final = Failpoint("dispatch.after-cancel")
AFTER_INTERRUPTED: Final = Failpoint("dispatch.after-interrupted-told")

LIMITER_REST_S: Final = 0.5
LONGEST_NAP_S: Final = 1.0
MOST_PERMITS: Final = 3
"""How many permits one intent may use up by coming too late; then it is taken back, and a cancel has its turn."""
AGAIN_S: Final = 5.0
"""How long one intent waits for another permit, its payment locked; the breaker may hold the turn ahead of it."""


def wall_ms() -> int:
    """Now, epoch milliseconds: for records only, never for durations."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Dispatcher:
    """Dispatch of one lane over its ports; knows nothing of Faust.

    ``holds`` tells whether this worker surely still owns its partitions: without that no request is written.
    """

    lane: str
    tiers: tuple[str, ...]
    rules: Rules
    ledger: Ledger
    outbox: Outbox
    limiter: Limiter
    provider: Provider
    breaker: Breaker
    turnstile: Turnstile
    lead: Lead
    spread: Spread
    archive: Archive = field(default_factory=MemoryArchive)
    holds: Callable[[], bool] = lambda: True
    now_ms: Callable[[], int] = wall_ms
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    locks: Locks = field(default_factory=Locks)

    async def create(self, task: PaymentTask, origin: Origin, *, queue: Queue) -> None:
        """Do what a create task of this queue asks for; returns when all that follows is durable."""
        if await self._known_from_long_ago(task, origin):
            return
        while True:
            try:
                if self._decide(task, origin) in payment.CALLS:
                    done = await self._try_call(task, origin, queue)
                else:
                    done = await self._without_call(task, origin)
            except Overtaken:
                logger().warning("another went on", action="overtaken", payment_id=task.payment_id, lane=self.lane)
                continue
            if done:
                return

    async def cancel(self, task: PaymentTask, origin: Origin) -> None:
        """Cancel a payment that was never sent, or say why not.

        Only events are published: what the entry before it stands for comes from that one's own task, uncommitted yet.
        """
        async with self.locks.of(task.payment_id):
            while True:
                found = self.ledger.read(origin.partition, task.payment_id)
                if found is not None and found.fingerprint != task.fingerprint:
                    await self.outbox.letter(task, str(origin), "fingerprint-conflict", 0)
                    return
                entry = payment.cancel(found or payment.fresh(task), str(origin), self.now_ms())
                if found is not None and entry is not found:
                    await self.outbox.event(task, found)  # it may not be out yet, and its entry is overwritten now
                try:
                    if entry is not found:
                        await self.ledger.write(origin.partition, task.payment_id, entry, before=found)
                except Overtaken:
                    continue
                await AFTER_CANCEL.reach()
                STEPS.labels(self.lane, "cancelled" if entry.state is State.CANCELLED else "cancel-refused").inc()
                if entry.state is State.CANCELLED:
                    await self.outbox.all_of(task, entry)
                else:
                    await self.outbox.event(task, entry)
                return

    async def _known_from_long_ago(self, task: PaymentTask, origin: Origin) -> bool:
        """Whether the ledger has forgotten this payment: then nobody is charged. See ``streams.stores.archive``."""
        if self.ledger.read(origin.partition, task.payment_id) is not None:
            return False
        try:
            known = await self.archive.find(task.payment_id)
        except ArchiveAway as error:
            NOT_LOOKED_UP.labels(self.lane).inc()
            logger().info("the archive is away", action="archive-away", lane=self.lane, error=str(error))
            return False
        if known is None or not known.called or self.ledger.read(origin.partition, task.payment_id) is not None:
            return False
        if known.fingerprint != task.fingerprint:
            await self.outbox.letter(task, str(origin), "fingerprint-conflict", 0)
        elif not known.final:
            # PostgreSQL knows of calls and the ledger does not: its changelog was lost, and money may be on its way.
            await self.outbox.letter(task, str(origin), "ledger-lost", 0)
        STEPS.labels(self.lane, "long-ago").inc()
        logger().warning("known from long ago", action="long-ago", payment_id=task.payment_id, state=known.state.value)
        return True

    def _decide(self, task: PaymentTask, origin: Origin) -> Step:
        return payment.decide(task, self.ledger.read(origin.partition, task.payment_id), self.now_ms(), self.rules)

    async def _without_call(self, task: PaymentTask, origin: Origin) -> bool:
        """All steps but calls. False: meanwhile a call is due."""
        async with self.locks.of(task.payment_id):
            step = self._decide(task, origin)
            found = self.ledger.read(origin.partition, task.payment_id)
            entry = found or payment.fresh(task)
            match step:
                case Step.CHARGE | Step.STATUS:
                    return False
                case Step.DROP:
                    logger().info(
                        "a task out of turn is dropped",
                        action="task-dropped",
                        payment_id=task.payment_id,
                        lane=self.lane,
                        attempt=task.attempt,
                        state=entry.state.value,
                        version=entry.version,
                    )
                case Step.CONFLICT:
                    await self.outbox.letter(task, str(origin), "fingerprint-conflict", 0)
                case Step.PUBLISH_AGAIN:
                    await self.outbox.all_of(task, entry)
                case Step.INTERRUPTED:
                    await self.outbox.all_of(task, entry)
                    await AFTER_INTERRUPTED.reach()
                    await self._settle(task, origin, entry, None, payment.INTERRUPTED)
                case Step.EXPIRE:
                    await self.outbox.tell_first(task, found)
                    await self._store_and_publish(task, origin, payment.expire(entry, self.now_ms()), found)
                case Step.REVIEW:
                    await self.outbox.tell_first(task, found)
                    reason = "key-expired" if self.rules.key_lifetime_ms is not None else "no-idempotency"
                    after = payment.review(entry, reason, self.now_ms(), replay_id=task.replay_id)
                    await self._store_and_publish(task, origin, after, found)
            STEPS.labels(self.lane, step.value).inc()
            return True

    async def _try_call(self, task: PaymentTask, origin: Origin, queue: Queue) -> bool:
        """Breaker, then permit, then the ledger's last word, then the call. False: nothing was sent, decide again."""
        try:
            found = await self._permit(queue, origin.partition, lambda: self._decide(task, origin) in payment.CALLS)
        except LimiterUnavailable:
            logger().warning("no permit: the limiter's store is away", action="limiter-away", lane=self.lane)
            await asyncio.sleep(LIMITER_REST_S)
            return False
        if found is None:
            return False
        permit, ticket = found
        granted_at = self.clock()
        try:
            async with self.locks.of(task.payment_id):
                step = self._decide(task, origin)
                if step not in payment.CALLS:
                    NOT_SENT.labels(self.lane, "overtaken").inc()
                    return False
                return await self._call(task, origin, Call(step.value), _Turn(permit, ticket, granted_at))
        finally:
            self.breaker.leave(ticket, ok=None)  # where nothing was sent, a probe makes room for the next one

    async def _permit(self, queue: Queue, partition: int, wanted: Callable[[], bool]) -> tuple[Permit, int] | None:
        """Wait for the breaker, then for a slot: an open breaker burns no permits, nor does what is wanted no more."""
        asked = self.clock()
        async with self.turnstile.turn(queue, partition):
            while True:
                while (wait_s := self.breaker.wait_s()) > 0:
                    BREAKER_OPEN.labels(self.lane).set(1)
                    await asyncio.sleep(min(wait_s, LONGEST_NAP_S))
                BREAKER_OPEN.labels(self.lane).set(float(self.breaker.is_open))
                if not wanted():
                    return None
                ticket = self.breaker.enter()
                try:
                    permit = await self._slot()
                    await asyncio.sleep(self.lead.turn_s(permit.opens_at - self.clock()))
                except BaseException:
                    self.breaker.leave(ticket, ok=None)
                    raise
                if self.breaker.admits(ticket):
                    break
                NOT_SENT.labels(self.lane, "breaker").inc()
        PERMIT_WAIT.labels(self.lane).observe(self.clock() - asked)
        return permit, ticket

    async def _slot(self) -> Permit:
        now = self.clock()
        ahead_s = max(self.lead.seconds(), self.spread.ahead_s(now))
        permit = await self.limiter.acquire(ahead_s)
        self.spread.granted(now + ahead_s, permit.opens_at)
        return permit

    async def _call(self, task: PaymentTask, origin: Origin, call: Call, turn: _Turn) -> bool:
        found = self.ledger.read(origin.partition, task.payment_id)
        before = found or payment.fresh(task)
        intended = payment.intend(before, task, call, self.now_ms())
        await self.outbox.tell_first(task, found)
        await BEFORE_INTENT.reach()
        await self.ledger.write(origin.partition, task.payment_id, intended, before=found)
        await AFTER_INTENT.reach()
        await self.outbox.all_of(task, intended)
        await AFTER_INTENT_TOLD.reach()
        answer = await self._request(task, call, turn, lambda: not payment.expired(task, before, self.now_ms()))
        if answer is None:
            entry = payment.not_sent(before, intended, self.now_ms())
            await self._store_and_publish(task, origin, entry, intended)
            return False
        outcome, sent_at_us = answer
        await AFTER_ANSWER.reach()
        self.breaker.leave(turn.ticket, ok=_healthy(outcome))
        await self._settle(task, origin, intended, before, outcome, sent_at_us=sent_at_us)
        return True

    async def _request(
        self, task: PaymentTask, call: Call, turn: _Turn, in_time: Callable[[], bool]
    ) -> tuple[Outcome, int | None] | None:
        """The outcome, and when the request was written on the limiter's clock; None: nothing was sent.

        Where the permit comes too late, the intent stands and the request waits for another one: a slow Kafka delays
        calls, it does not stop them.
        """
        permit, granted_at = turn.permit, turn.granted_at
        for _ in range(MOST_PERMITS):
            try:
                return await self._in_its_slot(task, call, permit, granted_at, in_time)
            except PermitExpired:
                NOT_SENT.labels(self.lane, "late").inc()
            if not in_time() or not self.holds() or not self.breaker.admits(turn.ticket):
                return None
            try:
                async with asyncio.timeout(AGAIN_S), self.turnstile.again():
                    permit = await self.limiter.acquire(self.lead.seconds())
            except (LimiterUnavailable, TimeoutError):
                return None
            granted_at = self.clock()
        return None

    async def _in_its_slot(
        self, task: PaymentTask, call: Call, permit: Permit, granted_at: float, in_time: Callable[[], bool]
    ) -> tuple[Outcome, int | None]:
        """One request, written when its slot begins. Raises PermitExpired: not written."""
        written_at: float | None = None

        async def wait() -> None:
            nonlocal written_at
            await BEFORE_REQUEST.reach()
            self.lead.took(self.clock() - granted_at)
            while (early_s := permit.opens_at - self.clock()) > 0:
                await asyncio.sleep(early_s)
            now = self.clock()
            permit.check(now)
            if not self.holds():
                raise PermitExpired("it is not sure that the partition is still ours")
            if not in_time():
                raise PermitExpired("the payment's time is over")
            written_at = now

        request = self.provider.charge if call is Call.CHARGE else self.provider.status
        try:
            outcome = await request(task, idempotency_key=task.payment_id, before_write=wait)
        except PermitExpired:
            raise
        except Exception:  # noqa: BLE001 - see below
            # A defect of the adapter's must not decide about money: what was written to the provider may have charged.
            logger().exception("the adapter failed", action="adapter-failed", lane=self.lane)
            kind = OutcomeKind.RETRYABLE if written_at is None else OutcomeKind.UNKNOWN
            outcome = Outcome(kind=kind, reason="adapter-failed", sent=written_at is not None)
        if written_at is None:
            return outcome, None
        CALL_SECONDS.labels(self.lane, call.value).observe(self.clock() - written_at)
        return outcome, permit.slot_us + int((written_at - permit.opens_at) * 1e6)

    async def _settle(  # noqa: PLR0913 - a call and what came of it
        self,
        task: PaymentTask,
        origin: Origin,
        intended: Entry,
        before: Entry | None,
        outcome: Outcome,
        *,
        sent_at_us: int | None = None,
    ) -> None:
        now = self.now_ms()
        delays = tuple(topics.tier_ms(tier) for tier in self.tiers)
        index = backoff.choose_tier(intended.attempt - intended.budget_from, delays, outcome.retry_after_s, self.chance)
        entry = payment.settle(
            intended,
            outcome,
            before=before,
            retry=Retry(self.tiers[index], now + delays[index]),
            now_ms=now,
            rules=self.rules,
            sent_at_us=sent_at_us,
        )
        CALLS.labels(self.lane, (intended.call or Call.CHARGE).value, outcome.kind.value).inc()
        if entry.retry_tier:
            RETRIES.labels(self.lane, entry.retry_tier).inc()
        logger().info(
            "call finished",
            action="call-finished",
            payment_id=task.payment_id,
            lane=self.lane,
            attempt=entry.attempt,
            outcome=outcome.kind.value,
            reason=entry.reason,
            state=entry.state.value,
        )
        await self._store_and_publish(task, origin, entry, intended)

    async def _store_and_publish(self, task: PaymentTask, origin: Origin, entry: Entry, before: Entry | None) -> None:
        if entry.state is State.REVIEW:
            entry = replace(entry, review_origin=str(origin))
        await self.ledger.write(origin.partition, task.payment_id, entry, before=before)
        await AFTER_ENTRY.reach()
        if entry.final:
            FINALS.labels(self.lane, entry.state.value).inc()
        await self.outbox.all_of(task, entry)


@dataclass(frozen=True, slots=True)
class _Turn:
    """The right to call: a permit, when it was granted, and the breaker's ticket."""

    permit: Permit
    ticket: int
    granted_at: float


def _healthy(outcome: Outcome) -> bool:
    """A decline is a healthy answer; a 429 says that we are too fast, not that the provider is ill."""
    return outcome.kind is not OutcomeKind.UNKNOWN and not (
        outcome.kind is OutcomeKind.RETRYABLE and outcome.reason not in {"rate-limited", "key-in-use"}
    )
