"""Intake's shell over memory: what is acked before what, and what a crash at each write leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from ops.kafka.clients import PublishTimedOut, RecordRefused, partition_for
from ops.kafka.message import Message
from ops.kafka.tables import Parts
from schemas import codec, identity, topics
from schemas.records import DeadLetter
from streams import dedup, intake
from streams.intake import Intake
from streams.router import Record, Router
from streams.share import LIMITS, Share

PARTITIONS = 12
ROUTER = Router(("simulator",), PARTITIONS)
KEYS = [f"order-{number}" for number in range(400)]
HOME = 5
IDS = {key: identity.payment_id("shop", key).encode() for key in KEYS}
AT_HOME = [key for key in KEYS if partition_for(IDS[key], PARTITIONS) == HOME]


class Crash(BaseException):
    """The process died here."""


def create(key: str, offset: int) -> Record:
    fields = {
        "type": "create",
        "merchant_id": "shop",
        "idempotency_key": key,
        "amount": "12.50",
        "currency": "USD",
        "payment_method": "pm_approve",
    }
    return Record(HOME, offset, 1_800_000_000_000, json.dumps(fields).encode())


@dataclass
class World:
    """What outlives a worker, and its journal. ``die_at`` kills it at its n-th durable write, before or after."""

    die_at: int = 0
    after: bool = False
    refused: tuple[str, ...] = ()
    time_out: bool = False
    journal: list[str] = field(default_factory=list)
    published: list[Message] = field(default_factory=list)
    changelog: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    parts: Parts = field(default_factory=Parts)
    writes: int = 0

    def _write(self, what: str) -> None:
        self.writes += 1
        if self.writes == self.die_at and not self.after:
            raise Crash
        self.journal.append(what)

    async def publish(self, messages: list[Message]) -> None:
        if self.time_out:
            raise PublishTimedOut("no ack")
        bad = [n for n, m in enumerate(messages) if m.topic in self.refused and m.topic != topics.DEAD_LETTER]
        self._write("publish")
        self.published += [message for n, message in enumerate(messages) if n not in bad]
        self._after()
        if bad:
            raise RecordRefused(bad[0], ValueError("too large"))

    async def append(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        assert partition == HOME
        entries = list(entries)
        for key, value in entries:
            assert value is None or self.parts.get(partition, key) is None, "local before durable"
        self._write("remember")
        self.changelog += entries
        self._after()

    def _after(self) -> None:
        if self.writes == self.die_at:
            raise Crash

    def worker(self) -> Intake:
        """A worker that has just recovered its memory from the changelog."""
        self.parts = Parts()
        for key, value in self.changelog:
            self.parts.put(HOME, key, value)
        return Intake(ROUTER, self, self.publish, nullcontext, Share(("simulator",)))

    def forwarded(self) -> list[bytes]:
        return [m.value or b"" for m in self.published if m.topic in topics.queue_topics("simulator")]

    def letters(self) -> list[DeadLetter]:
        return [codec.decode(m.value, DeadLetter) for m in self.published if m.topic == topics.DEAD_LETTER]


BATCH = [create(key, offset) for offset, key in enumerate(AT_HOME[:3])]


async def test_forwarded_first_then_remembered_then_known_locally() -> None:
    world = World()
    await world.worker().handle(BATCH)
    assert world.journal == ["publish", "remember"]
    assert len(world.forwarded()) == 3
    assert [key for key, _ in world.changelog] == [IDS[key] for key in AT_HOME[:3]]
    assert list(world.parts.of(HOME)) == [IDS[key] for key in AT_HOME[:3]]


async def test_what_a_merchant_has_waiting_counts_from_batch_to_batch_and_is_forgotten_with_the_process() -> None:
    world = World()
    worker = world.worker()
    for n, key in enumerate(AT_HOME[: LIMITS[0] + 1]):
        await worker.handle([create(key, n)])
    found = [m.topic for m in world.published if m.topic != topics.EVENTS]
    assert found == [topics.queue_topic("simulator", level) for level in [0] * LIMITS[0] + [1]]
    await world.worker().handle([create(AT_HOME[50], 50)])
    assert world.published[-2].topic == topics.lane_topic("simulator")


async def test_a_batch_that_leaves_nothing_to_remember_writes_no_memory() -> None:
    world = World()
    worker = world.worker()
    await worker.handle(BATCH)
    await worker.handle([create(AT_HOME[0], 50)])
    assert world.journal == ["publish", "remember", "publish"]
    assert len(world.published) == 6


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("die_at", [1, 2])
async def test_a_crash_at_any_write_and_a_replay_lead_to_the_same_end(die_at: int, after: bool) -> None:
    calm = World()
    await calm.worker().handle(BATCH)
    world = World(die_at=die_at, after=after)
    with pytest.raises(Crash):
        await world.worker().handle(BATCH)
    await world.worker().handle(BATCH)
    assert set(world.forwarded()) == set(calm.forwarded())
    remembered = {key: dedup.decode(value) for key, value in world.changelog if value}
    assert {(seen.partition, seen.offset) for seen in remembered.values()} == {(HOME, 0), (HOME, 1), (HOME, 2)}
    await world.worker().handle([create(AT_HOME[0], 77)])
    assert set(world.forwarded()) == set(calm.forwarded())
    assert not world.letters()


async def test_a_time_out_leaves_the_memory_untouched_and_counts_nothing() -> None:
    world = World(time_out=True)
    worker = world.worker()
    before = REGISTRY.get_sample_value("kifiya_intake_commands_total", {"decision": "new"}) or 0.0
    with pytest.raises(PublishTimedOut):
        await worker.handle(BATCH)
    assert (len(world.parts), world.changelog) == (0, [])
    assert (REGISTRY.get_sample_value("kifiya_intake_commands_total", {"decision": "new"}) or 0.0) == before
    world.time_out = False
    await worker.handle(BATCH)
    assert REGISTRY.get_sample_value("kifiya_intake_commands_total", {"decision": "new"}) == before + 3


async def test_a_refused_task_becomes_a_dead_letter_is_not_remembered_and_the_rest_goes_on() -> None:
    world = World(refused=(topics.lane_topic("simulator"),))
    junk = Record(HOME, 9, 0, b"junk")
    await world.worker().handle([*BATCH[:1], junk])
    assert {letter.reason for letter in world.letters()} == {"refused-by-broker", "undecodable"}
    refused = next(letter for letter in world.letters() if letter.reason == "refused-by-broker")
    assert (refused.partition, refused.offset) == (HOME, 0)
    assert refused.original == BATCH[0].value
    assert (world.changelog, len(world.parts)) == ([], 0)


async def test_a_refused_event_does_not_make_a_forwarded_payment_forgotten() -> None:
    world = World(refused=(topics.EVENTS,))
    await world.worker().handle(BATCH[:1])
    assert [letter.reason for letter in world.letters()] == ["refused-by-broker"]
    assert [key for key, _ in world.changelog] == [IDS[AT_HOME[0]]]


def remember(world: World, count: int, *, seen_at_ms: int) -> list[bytes]:
    """Put so many entries into the memory, all seen at this moment."""
    plan = ROUTER.plan(BATCH[:1], {}, seen_at_ms)
    (value,) = plan.remember.values()
    keys = [f"{seen_at_ms}-{number}".encode() for number in range(count)]
    for key in keys:
        world.parts.put(HOME, key, value)
    return keys


async def test_what_was_seen_before_the_window_is_forgotten_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "SWEEP_MAX", 10)
    world = World()
    worker = world.worker()
    old, young = remember(world, 35, seen_at_ms=1000), remember(world, 20, seen_at_ms=2000)
    assert await worker.forget(2000) == 35
    assert world.changelog == [(key, None) for key in old]
    assert list(world.parts.of(HOME)) == young
    assert world.journal == ["remember"] * 4
    assert await worker.forget(2000) == 0


async def test_a_tombstone_that_is_not_acked_forgets_nothing() -> None:
    world = World(die_at=1)
    worker = world.worker()
    old = remember(world, 5, seen_at_ms=1000)
    with pytest.raises(Crash):
        await worker.forget(2000)
    assert list(world.parts.of(HOME)) == old
