"""Dispatch in a world where anything dies at any moment: many lives of one payment, at random, each to its end.

The world keeps what Kafka and the provider keep; workers come and go. A record is redelivered until it is committed,
and sometimes once more; retries and cancels arrive in any order; the provider answers, refuses, hangs, charges unheard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Self

import pytest
import structlog

from ops.kafka.message import Message
from ops.kafka.tables import Parts
from schemas import codec, topics
from schemas.records import DeadLetter, PaymentEvent, PaymentResult, PaymentTask, State, TaskKind
from streams import payment, queues
from streams.breaker import Breaker
from streams.dispatch import Dispatcher, wall_ms
from streams.errors import PermitExpired
from streams.lead import Lead
from streams.origin import Origin
from streams.outbox import Outbox
from streams.providers.port import Outcome, OutcomeKind
from streams.spread import Spread
from streams.stores.ledger import TableLedger
from streams.throttle import Turnstile
from tests.unit.streams.world import FreeLimiter

LANE, PARTITION = "simulator", 3
TASK = PaymentTask(
    kind=TaskKind.CREATE,
    payment_id="107c45ba-7681-56a0-b5fb-19153d5aa05e",
    merchant_id="shop",
    idempotency_key="order-1",
    fingerprint="f1",
    amount_minor=1250,
    currency="USD",
    payment_method="pm_approve",
    lane=LANE,
    accepted_at_ms=1_800_000_000_000,
)
KEY = TASK.payment_id.encode()
FRESH, LAST = topics.lane_topic(LANE), topics.queue_topic(LANE, 3)
DUE, CANCEL = topics.due_topic(LANE), topics.cancel_topic(LANE)

QUEUES = queues.fresh_queues(LANE) | {DUE: queues.DUE}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A life writes a line for each call; a thousand lives are for nobody to read."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Crash(BaseException):
    """The process died here."""


@dataclass
class Provider:
    """Charges when asked, unless it refuses; forgets keys at once where ``key_lifetime_s`` is None."""

    random: Random
    key_lifetime_s: float | None
    kind: bool = False
    charges: int = 0
    declined: bool = False
    on_its_way: bool = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    async def charge(
        self, task: PaymentTask, *, idempotency_key: str, before_write: Callable[[], Awaitable[None]]
    ) -> Outcome:
        assert idempotency_key == task.payment_id
        return await self._answer(before_write, self._land)

    async def status(
        self, task: PaymentTask, *, idempotency_key: str, before_write: Callable[[], Awaitable[None]]
    ) -> Outcome:
        assert idempotency_key == task.payment_id
        return await self._answer(before_write, self._known)

    def _land(self) -> Outcome:
        if self.charges and self.key_lifetime_s is not None:
            return Outcome(kind=OutcomeKind.APPROVED)
        if self.declined or (not self.kind and self.random.random() < 0.1):
            self.declined = True
            return Outcome(kind=OutcomeKind.DECLINED)
        self.charges += 1
        return Outcome(kind=OutcomeKind.APPROVED)

    def _late(self) -> None:
        """A request that got no answer lands at last."""
        if self.on_its_way and self.random.random() < 0.3:
            self.on_its_way = False
            if not self.declined and not (self.charges and self.key_lifetime_s is not None):
                self.charges += 1

    def _known(self) -> Outcome:
        if self.declined:
            return Outcome(kind=OutcomeKind.DECLINED)
        return Outcome(kind=OutcomeKind.APPROVED if self.charges else OutcomeKind.ABSENT)

    async def _answer(self, before_write: Callable[[], Awaitable[None]], act: Callable[[], Outcome]) -> Outcome:
        self._late()
        mood = 0 if self.kind else self.random.randrange(10)
        if mood == 1:
            return Outcome(kind=OutcomeKind.RETRYABLE, reason="not-connected", sent=False)
        if mood == 2:
            raise PermitExpired("late")
        await before_write()
        if mood == 3:
            return Outcome(kind=OutcomeKind.RETRYABLE, reason="unavailable")
        if mood == 4:
            return Outcome(kind=OutcomeKind.UNKNOWN, reason="timeout")
        if mood == 5:
            raise Crash
        if mood == 8:
            self.on_its_way = self.on_its_way or act == self._land
            return Outcome(kind=OutcomeKind.UNKNOWN, reason="timeout")
        outcome = act()
        if mood == 6:
            return Outcome(kind=OutcomeKind.UNKNOWN, reason="reset")
        if mood == 7:
            raise Crash
        return outcome


@dataclass
class World:
    """What outlives a worker."""

    random: Random
    provider: Provider
    max_attempts: int
    kind: bool = False
    changelog: list[tuple[bytes, bytes]] = field(default_factory=list)
    published: list[Message] = field(default_factory=list)
    logs: dict[str, list[bytes]] = field(default_factory=lambda: {FRESH: [], LAST: [], DUE: [], CANCEL: []})
    committed: dict[str, int] = field(default_factory=lambda: dict.fromkeys((FRESH, LAST, DUE, CANCEL), 0))
    retries: list[bytes] = field(default_factory=list)
    parts: Parts = field(default_factory=Parts)

    def _may_die(self) -> None:
        if not self.kind and self.random.random() < 0.07:
            raise Crash

    async def append(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        assert partition == PARTITION
        self._may_die()
        for key, value in entries:
            assert value is not None
            self.changelog.append((key, value))
        self._may_die()

    async def publish(self, messages: list[Message]) -> None:
        for message in self.random.sample(messages, len(messages)):  # any of them may be stored when the worker dies
            self._may_die()
            self.published.append(message)
            if message.topic.startswith("payments.retry.") and message.value is not None:
                self.retries.append(message.value)
        self._may_die()

    def worker(self) -> Dispatcher:
        self.parts = Parts()
        for key, value in self.changelog:
            self.parts.put(PARTITION, key, payment.winner(self.parts.get(PARTITION, key), value))
        lifetime_s = self.provider.key_lifetime_s
        return Dispatcher(
            lane=LANE,
            tiers=("1s", "2s"),
            rules=payment.Rules(
                max_attempts=self.max_attempts, key_lifetime_ms=None if lifetime_s is None else int(lifetime_s * 1000)
            ),
            ledger=TableLedger(self),
            outbox=Outbox(LANE, self.publish, wall_ms),
            limiter=FreeLimiter(),
            provider=self.provider,
            breaker=Breaker(lambda: 0.0),
            turnstile=Turnstile(),
            lead=Lead(1.0),
            spread=Spread(1.0, 2),
        )

    def entry(self) -> payment.Entry | None:
        self.worker()
        value = self.parts.get(PARTITION, KEY)
        return payment.decode(value) if value else None

    async def step(self, worker: Dispatcher) -> None:
        """Deliver one record, of any topic, or hand a waiting retry on; commit it, or not."""
        if self.retries and (self.kind or self.random.random() < 0.5):
            found = self.random.randrange(len(self.retries))
            self.logs[DUE].append(self.retries[found])
            if self.kind or self.random.random() < 0.9:  # else delay died before its commit
                del self.retries[found]
            return
        waiting = [topic for topic, log in self.logs.items() if self.committed[topic] < len(log)]
        if not waiting:
            return
        topic = self.random.choice(waiting)
        offset = self.committed[topic]
        value = self.logs[topic][offset]
        task, origin = codec.decode(value, PaymentTask), Origin(topic, PARTITION, offset, value)
        if topic == CANCEL:
            await worker.cancel(task, origin)
        else:
            await worker.create(task, origin, queue=QUEUES[topic])
        if self.kind or self.random.random() < 0.8:
            self.committed[topic] = offset + 1

    def over(self) -> bool:
        return not self.retries and all(self.committed[topic] == len(log) for topic, log in self.logs.items())


async def live(world: World, cancels: int) -> None:
    """One life: a bad time, then a quiet one in which all that is open ends."""
    world.logs[FRESH].append(codec.encode(TASK))
    worker = world.worker()
    for number in range(400):
        if number == 60:
            world.kind = world.provider.kind = True
            worker = world.worker()
        if not world.kind and cancels and world.random.random() < 0.1:
            cancels -= 1
            world.logs[CANCEL].append(codec.encode(replace(TASK, kind=TaskKind.CANCEL)))
        if not world.kind and world.random.random() < 0.05:
            world.logs[world.random.choice((FRESH, LAST))].append(codec.encode(TASK))
        try:
            await world.step(worker)
        except Crash:
            worker = world.worker()
        if world.kind and world.over():
            return
    raise AssertionError("it never ends")


def check(world: World) -> None:
    entry = world.entry()
    assert entry is not None
    events: dict[int, PaymentEvent] = {}
    letters: dict[str, DeadLetter] = {}
    results: list[PaymentResult] = []
    for message in world.published:
        assert message.value is not None
        if message.topic == topics.EVENTS:
            event = codec.decode(message.value, PaymentEvent)
            assert events.setdefault(event.version, event) == event
        elif message.topic == topics.RESULTS:
            results.append(codec.decode(message.value, PaymentResult))
        elif message.topic == topics.DEAD_LETTER:
            letter = codec.decode(message.value, DeadLetter)
            letters[f"{letter.topic}/{letter.partition}/{letter.offset}"] = letter
    assert sorted(events) == list(range(2, entry.version + 1)), "an event of some version was never told"
    assert events[entry.version].state is entry.state
    finals = {event.state for event in events.values()} & {State.COMPLETED, State.FAILED, State.CANCELLED}
    assert len(finals) <= 1, "a final state was overwritten"
    assert world.provider.charges <= 1
    if entry.final:
        assert {result.status for result in results} == {entry.state}
        assert not letters
        assert (entry.state is State.COMPLETED) == (world.provider.charges == 1)
    else:
        assert entry.state is State.REVIEW, f"it is stuck in {entry.state}"
        assert list(letters) == [entry.review_origin]


@pytest.mark.parametrize("block", range(6))
def test_every_life_of_a_payment_ends_well(block: int) -> None:
    """Final or in review, told completely, charged at most once, and charged exactly if it says so."""
    for seed in range(200 * block, 200 * (block + 1)):
        random = Random(seed)
        provider = Provider(random, 3600.0 if seed % 2 else None)
        world = World(random, provider, max_attempts=(2, 4, 30)[seed % 3])
        try:
            asyncio.run(live(world, cancels=seed % 4))
            check(world)
        except AssertionError as error:
            raise AssertionError(f"life {seed}: {error}") from error
