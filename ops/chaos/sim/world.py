"""One life of the gateway: what a seed makes happen, and the evidence it leaves for the checker."""

from __future__ import annotations

import functools
import itertools
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, cast

from ops.chaos import checker
from ops.chaos.checker import Violation
from ops.chaos.evidence import Answer, Asked, Evidence, Letter, Limit, Told, Via
from ops.chaos.sim.bank import Adapter, Bank
from ops.chaos.sim.kafka import SESSION_S, Broker, Group
from ops.chaos.sim.loop import Deadlock, Loop, running, sleep
from ops.chaos.sim.roles import DelayWorker, DispatchWorker, IntakeWorker, quietly
from ops.chaos.sim.store import EPOCH_S, Client, Server
from ops.chaos.sim.worker import Worker
from ops.kafka.clients import PublishError
from ops.kafka.message import Message
from schemas import codec, command, identity, topics
from schemas.lanes import Lane
from schemas.records import (
    FINAL,
    CommandType,
    DeadLetter,
    PaymentCommand,
    PaymentEvent,
    PaymentResult,
    State,
)
from streams.breaker import Breaker
from streams.dispatch import Dispatcher
from streams.lead import Lead
from streams.limiter.redis import RedisLimiter
from streams.locks import Locks
from streams.outbox import Outbox
from streams.payment import Rules
from streams.router import Router
from streams.share import Share
from streams.spread import Spread
from streams.throttle import Turnstile

LANE: Final = Lane(name="sim", limit=2, window_ms=1000, guard_ms=20)
WINDOW_S: Final = (LANE.window_ms + LANE.guard_ms) / 1000
TIERS: Final = ("1s", "2s", "5s")
MERCHANT: Final = "shop"
TROUBLE_S: Final = 15.0
"""Faults begin within so long, and end a session later."""
SETTLE_S: Final = 1.0
LONGEST_S: Final = 600.0


@dataclass(slots=True)
class Life:
    """What came of one seed. ``trace`` tells what happened, for a person who replays it."""

    seed: int
    violations: list[Violation] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    evidence: Evidence | None = None
    seconds: float = 0.0


class World:
    """Everything of one life, made from the seed."""

    def __init__(self, seed: int, make: Callable[[World, DispatchWorker], Dispatcher] | None = None) -> None:
        self.random = Random(seed)  # noqa: S311 - whoever knows the seed is to know what happens
        self.life = Life(seed)
        self.wall_jump_s = 0.0
        self.wall_jumped = False
        self.broker = Broker(self.random, self.now_ms, partitions=2)
        self.server = Server(self.random, drift=self.random.uniform(-1e-4, 1e-4))
        self.bank = Bank(self.random, LANE.name, idempotent=self.random.random() < 0.7)
        self.asked: list[Asked] = []
        self.offered = 0
        self.healed_s = 0.0
        self._make = make or World.dispatcher
        groups = [Group(self.broker, 2) for _ in range(3)]
        # A light merchant's first payments wait in all levels, and a replay of intake's puts some in another one.
        weight = (1.0, 0.05, 0.002)[seed % 3]
        router, make_share = Router((LANE.name,), 2), lambda: Share((LANE.name,), {MERCHANT: weight})
        self.dispatch = [
            DispatchWorker(f"dispatch-{number}", groups[1], self.tell, LANE.name, self._dispatcher)
            for number in range(self.random.choice((1, 2, 2, 3)))
        ]
        for worker in self.dispatch:
            worker.most = (1, 2, 1, 3, 1, 4, 1, 1)[seed % 8]
        self.workers: list[Worker] = [
            IntakeWorker("intake", groups[0], self.tell, router, make_share),
            *self.dispatch,
            DelayWorker("delay", groups[2], self.tell, TIERS, LANE.name),
        ]
        self.groups = groups
        self._decoded: list[list[PaymentEvent]] = [[] for _ in range(self.broker.partitions)]

    def tell(self, said: str) -> None:
        """Write into the trace."""
        self.life.trace.append(f"{running().now:8.3f}  {said}")

    def now_ms(self) -> int:
        """The wall clock of all processes; it may jump."""
        return int((EPOCH_S + running().now + self.wall_jump_s) * 1000)

    def _dispatcher(self, worker: DispatchWorker) -> Dispatcher:
        return self._make(self, worker)

    def dispatcher(self, worker: DispatchWorker) -> Dispatcher:
        """The product's dispatcher over this world."""
        limiter = RedisLimiter("redis://unused", LANE, client=cast("Any", Client(self.server)), clock=worker.clock)
        return Dispatcher(
            lane=LANE.name,
            tiers=TIERS,
            rules=Rules(max_attempts=6, key_lifetime_ms=86_400_000 if self.bank.idempotent else None),
            ledger=worker.ledger(),
            outbox=Outbox(LANE.name, self.broker.publish, self.now_ms),
            limiter=limiter,
            provider=Adapter(self.bank, LANE.guard_ms / 1000 * 0.45),
            breaker=Breaker(worker.clock),
            turnstile=Turnstile(),
            lead=Lead(WINDOW_S),
            spread=Spread(WINDOW_S, LANE.limit),
            holds=worker.lease.holds,
            now_ms=self.now_ms,
            clock=worker.clock,
            chance=self.random.random,
            locks=Locks(),
        )

    async def run(self) -> Life:
        """Live: a time of troubles, then a quiet one until all is over."""
        for group in self.groups:
            group.watch()
        for worker in self.workers:
            worker.start()
        self._plan_faults()
        self._plan_clients()
        loop = running()
        quiet_at = self.healed_s = TROUBLE_S + SESSION_S
        loop.call_world(quiet_at, self._heal)
        over_at: float | None = None
        while loop.now < LONGEST_S:
            await sleep(0.5)
            if loop.now < quiet_at or not self._over():
                over_at = None
            elif over_at is None:
                over_at = loop.now
            elif loop.now - over_at >= SETTLE_S:
                break
        self.life.seconds = loop.now
        self.life.evidence = self._evidence()
        self.life.violations = checker.check(self.life.evidence)
        self.life.violations += [
            Violation("no-exception-leaves", "a handler", said) for said in self.life.trace if "DEFECT" in said
        ]
        return self.life

    # What clients do.

    def _plan_clients(self) -> None:
        for number in range(self.random.randint(2, 7)):
            self._at(self.random.uniform(0.0, TROUBLE_S / 2), functools.partial(self._payment, number))

    def _payment(self, number: int) -> None:
        """One payment, now and then sent twice, contradicted, cancelled, or with a short life."""
        random, key = self.random, f"order-{number}"
        expires = self.now_ms() + random.randint(500, 8000) if random.random() < 0.15 else None
        self._send(key, 1000 + number, expires)
        if random.random() < 0.3:
            self._after(random.uniform(0.0, 12.0), lambda: self._send(key, 1000 + number, expires))
        if random.random() < 0.2:
            self._after(random.uniform(0.0, 12.0), lambda: self._send(key, 7, expires))
        if random.random() < 0.3:
            self._after(random.uniform(0.0, 12.0), lambda: self._cancel(key))
        if random.random() < 0.1:
            self._after(random.uniform(0.0, 5.0), self._garbage)

    def _send(self, key: str, amount_minor: int, expires_at_ms: int | None) -> None:
        asked = command.check(
            PaymentCommand(
                type=CommandType.CREATE, merchant_id=MERCHANT, idempotency_key=key, amount_minor=amount_minor,
                currency="USD", payment_method="pm_approve", lane=LANE.name, expires_at_ms=expires_at_ms,
                accepted_at_ms=self.now_ms(),
            ),
            lanes=frozenset({LANE.name}),
        )  # fmt: skip
        running().create_task(self._publish(asked, codec.encode(asked)))

    async def _publish(self, asked: PaymentCommand, value: bytes) -> None:
        payment_id = asked.payment_id or ""
        self.offered += 1
        answer = Answer.ACCEPTED
        try:
            await self.broker.publish([Message(topics.COMMANDS, payment_id.encode(), value)])
        except PublishError:
            answer = Answer.MAYBE
        self.offered -= 1
        origin = next(
            ((each.topic, each.partition, each.offset) for each in self.broker.all_of(topics.COMMANDS)
             if each.value == value), None,
        )  # fmt: skip
        self.asked.append(
            Asked(
                via=Via.KAFKA, payment_id=payment_id, merchant_id=MERCHANT, key=asked.idempotency_key or "",
                body=command.fingerprint(asked), amount_minor=asked.amount_minor or 0, currency="USD", answer=answer,
                answered_ns=round(running().now * 1e9), origin=origin,
            )
        )  # fmt: skip

    def _cancel(self, key: str) -> None:
        payment_id = identity.payment_id(MERCHANT, key)
        asked = PaymentCommand(type=CommandType.CANCEL, payment_id=payment_id, merchant_id=MERCHANT)
        message = Message(topics.COMMANDS, payment_id.encode(), codec.encode(asked))
        running().create_task(quietly(self.broker.publish([message])))

    def _garbage(self) -> None:
        value = b"\x00garbage" + uuid.UUID(int=self.random.getrandbits(128)).bytes
        message = Message(topics.COMMANDS, None, value, partition=self.random.randrange(2))
        running().create_task(quietly(self.broker.publish([message])))

    # What goes wrong.

    def _plan_faults(self) -> None:
        for _ in range(self.random.randint(0, 6)):
            fault = self.random.choice(self._faults())
            self._at(self.random.uniform(0.5, TROUBLE_S), fault)

    def _faults(self) -> list[Callable[[], None]]:
        random = self.random
        anyone = random.choice(self.workers)
        one = random.choice(self.dispatch)
        return [
            lambda: anyone.kill(random.uniform(0.1, 3.0)),
            lambda: one.kill(random.uniform(0.1, SESSION_S * 1.5)),
            lambda: anyone.doom(random.randint(1, 12), random.uniform(0.1, 3.0)),
            lambda: self.workers[0].doom(random.randint(1, 6)),
            lambda: anyone.stop(random.uniform(0.05, 2.0)),
            lambda: one.stop(random.uniform(SESSION_S * 0.8, SESSION_S * 2)),
            lambda: self._told("redis is flushed", self.server.flush),
            lambda: self._told("redis restarts", lambda: self.server.restart(keep=random.random() < 0.5)),
            lambda: self._told("redis is away", lambda: self._redis_away(random.uniform(0.2, 6.0))),
            lambda: self._told("redis hangs", lambda: self._redis_hangs(random.uniform(0.1, 3.0))),
            lambda: self._told("redis' clock jumps", self._redis_jumps),
            lambda: self._told("the wall clock jumps", self._wall_jumps),
            lambda: self._told("kafka is away", lambda: self._kafka_away(random.uniform(0.5, 5.0))),
            lambda: self._told("a rebalance", random.choice(self.groups).shake),
        ]

    def _told(self, what: str, act: Callable[[], None]) -> None:
        self.tell(what)
        act()

    def _redis_away(self, seconds: float) -> None:
        self.server.away_until = running().now + seconds
        self._after(seconds, lambda: self.server.restart(keep=self.random.random() < 0.5))

    def _redis_hangs(self, seconds: float) -> None:
        self.server.hung_until = running().now + seconds

    def _redis_jumps(self) -> None:
        sizes = (0.05, 0.2, 1.0, 3600.0)
        self.server.jump_us += int(self.random.choice((-1, 1)) * self.random.choice(sizes) * 1e6)

    def _wall_jumps(self) -> None:
        self.wall_jumped = True
        self.wall_jump_s += self.random.choice((-1, 1)) * self.random.choice((0.05, 1.0, 30.0))

    def _kafka_away(self, seconds: float) -> None:
        self.broker.away_until = running().now + seconds

    def _heal(self) -> None:
        """From now on nothing breaks, and the provider is kind."""
        self.tell("all is well from now on")
        self.bank.kind = True

    def _at(self, when: float, act: Callable[[], None]) -> None:
        running().call_world(when, act)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        running().call_world(running().now + seconds, act)

    # What is left.

    def _events(self) -> list[PaymentEvent]:
        """All of them, decoded once."""
        for partition, found in enumerate(self._decoded):
            log = self.broker.log(topics.EVENTS, partition)
            found += [codec.decode(record.value, PaymentEvent) for record in log[len(found) :]]
        return list(itertools.chain(*self._decoded))

    def _over(self) -> bool:
        """Whether every payment that stands on the commands topic has ended, and all that was read is committed.

        A worker that dies between a payment's last event and its result comes back to the record it had not acked.
        """
        if self.offered or self.bank.landing or not self._drained():
            return False
        newest: dict[str, PaymentEvent] = {}
        for event in self._events():
            if event.payment_id not in newest or event.version > newest[event.payment_id].version:
                newest[event.payment_id] = event
        done = {key for key, event in newest.items() if event.state in FINAL or event.state is State.REVIEW}
        return {each.payment_id for each in self.asked} <= done

    def _drained(self) -> bool:
        """Whether every group has committed all that stands on its topics."""
        return all(
            worker.group.committed.get((topic, partition), 0) == len(self.broker.log(topic, partition))
            for worker in self.workers
            for topic in worker.sources()
            for partition in range(worker.group.count)
        )

    def _evidence(self) -> Evidence:
        events = self._events()
        rows: dict[str, Told] = {}
        for event in events:
            if event.version > rows.get(event.payment_id, Told(State.PENDING, 0, 0, "")).version:
                rows[event.payment_id] = Told(
                    event.state, event.version, event.amount_minor, event.currency, event.reason
                )
        results: dict[str, Told] = {}
        for record in self.broker.all_of(topics.RESULTS):
            found = codec.decode(record.value, PaymentResult)
            results[found.payment_id] = Told(found.status, found.version, found.amount_minor, found.currency)
        letters = [_letter(each.value or b"") for each in self.broker.all_of(topics.DEAD_LETTER)]
        # Where the wall clock jumped, its moments say nothing: intents are only counted.
        wall_ns = round((EPOCH_S + (LONGEST_S if self.wall_jumped else 0.0)) * 1e9)
        return Evidence(
            asked=self.asked, arrivals=self.bank.arrivals, charges=self.bank.charges, events=events, results=results,
            rows=rows, letters=letters, stored_letters=list({letter.origin for letter in letters}),
            limits={LANE.name: Limit(LANE.limit)}, wall_ns=wall_ns, healed_ns=round(self.healed_s * 1e9),
        )  # fmt: skip


def _letter(value: bytes) -> Letter:
    found = codec.decode(value, DeadLetter)
    return Letter((found.topic, found.partition, found.offset), found.reason, found.payment_id)


_LOOP: list[Loop] = []


def live(seed: int, make: Callable[[World, DispatchWorker], Dispatcher] | None = None) -> Life:
    """Live the life of this seed; always the same one."""
    if not _LOOP:
        _LOOP.append(Loop())
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    world = World(seed, make)
    try:
        return _LOOP[0].live(world.run())
    except Deadlock:
        world.life.violations.append(Violation("nothing-lost", "everything", "stands still for ever"))
        return world.life
