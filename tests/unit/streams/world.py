"""Dispatch over memory adapters: the doubles of its tests."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from ops.kafka.clients import Message
from ops.kafka.tables import Parts
from schemas import codec, topics
from schemas.records import PaymentEvent, PaymentTask, TaskKind
from streams import payment
from streams.breaker import Breaker
from streams.dispatch import Dispatcher, wall_ms
from streams.errors import PermitExpired
from streams.lead import Lead
from streams.limiter.port import Permit
from streams.origin import Origin
from streams.outbox import Outbox
from streams.payment import Rules
from streams.providers.port import Outcome
from streams.spread import Spread
from streams.stores.ledger import TableLedger
from streams.throttle import Turnstile

TASK = PaymentTask(
    kind=TaskKind.CREATE,
    payment_id="107c45ba-7681-56a0-b5fb-19153d5aa05e",
    merchant_id="shop",
    idempotency_key="order-1",
    fingerprint="f1",
    amount_minor=1250,
    currency="USD",
    payment_method="pm_approve",
    lane="simulator",
    accepted_at_ms=1_800_000_000_000,
)
ORIGIN = Origin(topics.lane_topic("simulator"), 3, 17, b"")
TIERS = ("1s", "2s", "5s")


class Crash(BaseException):
    """The process died here."""


class FreeLimiter:
    """Grants a slot at once."""

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        del lead_s
        now = time.monotonic()
        return Permit(opens_at=now, closes_at=now + 10, slot_us=int(now * 1e6))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""


@dataclass
class ScriptedProvider:
    """Answers in the order given, and writes down what was asked."""

    answers: list[Any]
    calls: list[str] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    key_lifetime_s: float | None = 60.0

    async def _answer(self, call: str, before_write: Callable[[], Awaitable[None]]) -> Outcome:
        self.before()
        answer = self.answers.pop(0)
        if isinstance(answer, PermitExpired):
            raise answer
        await before_write()
        self.calls.append(call)
        if isinstance(answer, BaseException):
            raise answer
        return Outcome(kind=answer, reason=None, detail=None, provider_charge_id=None, retry_after_s=None, sent=True)

    async def charge(
        self, task: PaymentTask, *, idempotency_key: str, before_write: Callable[[], Awaitable[None]]
    ) -> Outcome:
        assert idempotency_key == task.payment_id
        return await self._answer("charge", before_write)

    async def status(
        self, task: PaymentTask, *, idempotency_key: str, before_write: Callable[[], Awaitable[None]]
    ) -> Outcome:
        assert idempotency_key == task.payment_id
        return await self._answer("status", before_write)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""


@dataclass
class World:
    """What outlives a worker: the changelog and the topics. ``die_at`` kills the worker at its n-th durable write."""

    changelog: dict[bytes, bytes] = field(default_factory=dict)
    published: list[Message] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    parts: Parts = field(default_factory=Parts)
    writes: int = 0
    die_at: int = 0

    def _write(self) -> None:
        self.writes += 1
        if self.writes == self.die_at:
            raise Crash

    async def append(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        assert partition == ORIGIN.partition
        for key, value in entries:
            self._write()
            assert value is not None
            self.changelog[key] = payment.winner(self.changelog.get(key), value)
            self.journal.append(f"ledger:{payment.decode(value).event}")

    async def publish(self, messages: list[Message]) -> None:
        self._write()
        self.published += messages
        self.journal += [f"topic:{message.topic}" for message in messages]

    def worker(self, provider: ScriptedProvider) -> Dispatcher:
        """A worker that has just recovered its ledger from the changelog."""
        self.parts = Parts()
        for key, value in self.changelog.items():
            self.parts.put(ORIGIN.partition, key, value)
        lifetime_s = provider.key_lifetime_s
        return Dispatcher(
            lane="simulator",
            tiers=TIERS,
            rules=Rules(max_attempts=3, key_lifetime_ms=None if lifetime_s is None else int(lifetime_s * 1000)),
            ledger=TableLedger(self),
            outbox=Outbox("simulator", self.publish, wall_ms),
            limiter=FreeLimiter(),
            provider=provider,
            breaker=Breaker(time.monotonic),
            turnstile=Turnstile(),
            lead=Lead(1.0),
            spread=Spread(1.0, 2),
            chance=lambda: 0.0,
        )

    def events(self) -> dict[int, PaymentEvent]:
        """Events by version; two events of one version must be the same."""
        found: dict[int, PaymentEvent] = {}
        for message in self.published:
            if message.topic == topics.EVENTS:
                event = codec.decode(message.value, PaymentEvent)
                assert found.setdefault(event.version, event) == event
        return found

    def retries(self) -> list[PaymentTask]:
        """Scheduled retries, without repeats."""
        found = [
            codec.decode(message.value, PaymentTask)
            for message in self.published
            if message.topic.startswith("payments.retry.")
        ]
        return list({task.attempt: task for task in found}.values())
