"""DISPATCH: calls the provider of one lane, one call in hand per partition, and settles what it answers.

Reads ``payments.lane.<lane>``, ``.due`` and ``.cancel``; writes the ledger, then events, results, retries, dead letters.
A record is acked only after the broker has acked all that follows from it. Midway crash: before the intent is durable the
task runs anew; after it the call counts as UNKNOWN and the provider is asked; after the outcome the ledger publishes again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from prometheus_client import Counter, Gauge, Histogram

from ops.kafka.clients import Message
from ops.telemetry import logger
from schemas import codec, topics
from schemas.records import PaymentTask, State
from streams import backoff, dead_letter, payment
from streams.breaker import Breaker
from streams.errors import LimiterUnavailable, PermitExpired
from streams.limiter.port import Limiter, Permit
from streams.payment import Call, Entry, Retry, Rules, Step
from streams.providers.port import Outcome, OutcomeKind, Provider
from streams.stores.ledger import Ledger
from streams.throttle import Turnstile

CALLS = Counter("kifiya_provider_calls", "Provider calls by outcome.", ["lane", "call", "outcome"])
NOT_SENT = Counter("kifiya_permits_not_used", "Permits that came too late or for nothing.", ["lane", "why"])
STEPS = Counter("kifiya_dispatch_tasks", "Tasks by what was done with them.", ["lane", "step"])
RETRIES = Counter("kifiya_retries", "Retries scheduled, by tier.", ["lane", "tier"])
FINALS = Counter("kifiya_payments_final", "Payments that became final, by state.", ["lane", "state"])
LETTERS = Counter("kifiya_dispatch_dead_letters", "Dead letters of dispatch, by reason.", ["lane", "reason"])
CALL_SECONDS = Histogram("kifiya_provider_call_seconds", "Duration of a provider call.", ["lane", "call"])
PERMIT_WAIT = Histogram(
    "kifiya_permit_wait_seconds", "Wait for a permit.", ["lane"], buckets=(0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)
)
BREAKER_OPEN = Gauge("kifiya_breaker_open", "1 while the lane's breaker holds calls back.", ["lane"])

LIMITER_REST_S = 0.5
LONGEST_NAP_S = 1.0

Publish = Callable[[list[Message]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record stands in Kafka, and its bytes, for dead letters."""

    topic: str
    partition: int
    offset: int
    value: bytes

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


def wall_ms() -> int:
    """Now, epoch milliseconds: for records only, never for durations."""
    return time.time_ns() // 1_000_000


class Locks:
    """One lock per payment in hand; forgotten when nobody holds or awaits it."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, payment_id: str) -> AsyncIterator[None]:
        """Hold the payment's lock."""
        lock, users = self._held.get(payment_id, (asyncio.Lock(), 0))
        self._held[payment_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._held[payment_id]
            if users == 1:
                del self._held[payment_id]
            else:
                self._held[payment_id] = (lock, users - 1)


@dataclass(slots=True)
class Dispatcher:
    """Dispatch of one lane over its ports; knows nothing of Faust."""

    lane: str
    tiers: tuple[str, ...]
    rules: Rules
    ledger: Ledger
    publish: Publish
    limiter: Limiter
    provider: Provider
    breaker: Breaker
    turnstile: Turnstile
    now_ms: Callable[[], int] = wall_ms
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    locks: Locks = field(default_factory=Locks)

    async def create(self, task: PaymentTask, origin: Origin, *, due: bool) -> None:
        """Do what a create task asks for; returns when all that follows is durable."""
        while True:
            step = self._decide(task, origin)
            if step in payment.CALLS:
                if await self._try_call(task, origin, due=due):
                    return
                continue
            async with self.locks.of(task.payment_id):
                step = self._decide(task, origin)
                if step not in payment.CALLS:
                    await self._without_call(step, task, origin)
                    return

    async def cancel(self, task: PaymentTask, origin: Origin) -> None:
        """Cancel a payment that was never sent, or say why not."""
        async with self.locks.of(task.payment_id):
            before = self.ledger.read(task.payment_id)
            if before is not None and before.fingerprint != task.fingerprint:
                await self._letter(task, origin, "fingerprint-conflict", 0)
                return
            entry = payment.cancel(before or payment.fresh(task), str(origin), self.now_ms())
            STEPS.labels(self.lane, "cancelled" if entry.state is State.CANCELLED else "cancel-refused").inc()
            if before is not None and entry is not before:
                await self._publish(task, before, origin)  # its own event may not be out yet, and is overwritten now
            if entry is not before:
                await self.ledger.write(origin.partition, task.payment_id, entry)
            await self._publish(task, entry, origin)

    def _decide(self, task: PaymentTask, origin: Origin) -> Step:
        del origin
        return payment.decide(task, self.ledger.read(task.payment_id), self.now_ms(), self.rules)

    async def _without_call(self, step: Step, task: PaymentTask, origin: Origin) -> None:
        STEPS.labels(self.lane, step.value).inc()
        entry = self.ledger.read(task.payment_id) or payment.fresh(task)
        match step:
            case Step.DROP:
                return
            case Step.CONFLICT:
                await self._letter(task, origin, "fingerprint-conflict", 0)
                return
            case Step.PUBLISH_AGAIN:
                await self._publish(task, entry, origin)
                return
            case Step.INTERRUPTED:
                await self._publish(task, entry, origin)
                await self._settle(task, origin, entry, None, payment.INTERRUPTED)
                return
            case Step.EXPIRE:
                entry = payment.expire(entry, self.now_ms())
            case Step.REVIEW:
                entry = payment.review(entry, "key-expired", self.now_ms(), replay_id=task.replay_id)
            case Step.CHARGE | Step.STATUS:
                raise AssertionError(step)
        await self._store_and_publish(task, entry, origin)

    async def _try_call(self, task: PaymentTask, origin: Origin, *, due: bool) -> bool:
        """Breaker, then permit, then the ledger's last word, then the call. False: nothing was sent, decide again."""
        await self._breaker_lets_through()
        try:
            permit = await self._permit(due=due)
        except LimiterUnavailable:
            logger().warning("no permit: the limiter's store is away", action="limiter-away", lane=self.lane)
            await asyncio.sleep(LIMITER_REST_S)
            return False
        async with self.locks.of(task.payment_id):
            step = self._decide(task, origin)
            if step not in payment.CALLS:
                NOT_SENT.labels(self.lane, "overtaken").inc()
                return False
            return await self._call(task, origin, Call(step.value), permit)

    async def _breaker_lets_through(self) -> None:
        while (wait_s := self.breaker.wait_s()) > 0:
            BREAKER_OPEN.labels(self.lane).set(1)
            await asyncio.sleep(min(wait_s, LONGEST_NAP_S))
        BREAKER_OPEN.labels(self.lane).set(0)

    async def _permit(self, *, due: bool) -> Permit:
        asked = self.clock()
        async with self.turnstile.turn(due=due):
            permit = await self.limiter.acquire()
        PERMIT_WAIT.labels(self.lane).observe(self.clock() - asked)
        return permit

    async def _call(self, task: PaymentTask, origin: Origin, call: Call, permit: Permit) -> bool:
        before = self.ledger.read(task.payment_id) or payment.fresh(task)
        intended = payment.intend(before, task, call, self.now_ms())
        await self.ledger.write(origin.partition, task.payment_id, intended)
        await self._publish(task, intended, origin)
        await asyncio.sleep(max(0.0, permit.opens_at - self.clock()))
        written_at: list[float] = []

        def last_check() -> None:
            now = self.clock()
            permit.check(now)
            written_at.append(now)

        started = self.clock()
        request = self.provider.charge if call is Call.CHARGE else self.provider.status
        try:
            outcome = await request(task, idempotency_key=task.payment_id, before_write=last_check)
        except PermitExpired:
            NOT_SENT.labels(self.lane, "late").inc()
            entry = payment.not_sent(before, intended, self.now_ms())
            await self._store_and_publish(task, entry, origin)
            return False
        CALL_SECONDS.labels(self.lane, call.value).observe(self.clock() - started)
        sent_at_us = permit.slot_us + int((written_at[-1] - permit.opens_at) * 1e6) if written_at else None
        self._tell_breaker(outcome)
        await self._settle(task, origin, intended, before, outcome, sent_at_us=sent_at_us)
        return True

    def _tell_breaker(self, outcome: Outcome) -> None:
        """A decline is a healthy answer; a 429 says that we are too fast, not that the provider is ill."""
        failed = outcome.kind is OutcomeKind.UNKNOWN or (
            outcome.kind is OutcomeKind.RETRYABLE and outcome.reason not in {"rate-limited", "key-in-use"}
        )
        self.breaker.record(not failed)

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
        await self._store_and_publish(task, entry, origin)

    async def _store_and_publish(self, task: PaymentTask, entry: Entry, origin: Origin) -> None:
        await self.ledger.write(origin.partition, task.payment_id, entry)
        if entry.final:
            FINALS.labels(self.lane, entry.state.value).inc()
        await self._publish(task, entry, origin)

    async def _publish(self, task: PaymentTask, entry: Entry, origin: Origin) -> None:
        """Publish all that an entry stands for. Idempotent: consumers key on (payment_id, version) and on attempts."""
        key = task.payment_id.encode()
        messages = [Message(topics.EVENTS, key, codec.encode(payment.event_of(task, entry)))]
        result = payment.result_of(task, entry)
        if result is not None:
            messages.append(Message(topics.RESULTS, key, codec.encode(result)))
        retry = payment.retry_of(task, entry)
        if retry is not None:
            messages.append(Message(topics.retry_topic(retry[0]), key, codec.encode(retry[1])))
        await self.publish(messages)
        if entry.state is State.REVIEW:
            await self._letter(task, origin, entry.reason or "review", entry.attempt, entry.detail or "")

    async def _letter(self, task: PaymentTask, origin: Origin, reason: str, attempts: int, detail: str = "") -> None:
        LETTERS.labels(self.lane, reason).inc()
        letter = dead_letter.letter(
            reason=reason,
            detail=detail,
            stage="dispatch",
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            original=codec.encode(replace(task, attempt=max(attempts, 1))),
            payment_id=task.payment_id,
            merchant_id=task.merchant_id,
            lane=task.lane,
            attempts=attempts,
            at_ms=self.now_ms(),
        )
        key = task.payment_id.encode() if reason != "fingerprint-conflict" else None
        await self.publish([dead_letter.message(letter, key=key)])
