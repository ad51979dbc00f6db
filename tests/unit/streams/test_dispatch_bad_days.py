"""Dispatch when something is late, away, stopped, defect, forgotten or cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from schemas import codec, topics
from schemas.records import DeadLetter, EventType, PaymentTask, State, TaskKind
from streams.dispatch import MOST_PERMITS, wall_ms
from streams.errors import ArchiveAway, PermitExpired
from streams.locks import Locks
from streams.origin import Origin
from streams.providers.port import Outcome, OutcomeKind
from streams.queues import DUE, FIRST
from streams.stores.archive import Archived, MemoryArchive
from tests.unit.streams.world import ORIGIN, TASK, Crash, ScriptedProvider, World

SETTLED = Archived(State.COMPLETED, 3, TASK.fingerprint)


@pytest.mark.parametrize(
    ("known", "calls", "letters"),
    [
        (None, ["charge"], []),
        (Archived(State.PENDING, 1, TASK.fingerprint), ["charge"], []),
        (SETTLED, [], []),
        (replace(SETTLED, state=State.CANCELLED, version=2), [], []),
        (replace(SETTLED, fingerprint="other"), [], ["fingerprint-conflict"]),
        (replace(SETTLED, state=State.UNKNOWN), [], ["ledger-lost"]),
    ],
    ids=["unknown", "told by intake only", "completed", "cancelled", "another payment", "the ledger was lost"],
)
async def test_what_the_ledger_may_have_forgotten_is_looked_up_before_the_first_call(
    known: Archived | None, calls: list[str], letters: list[str]
) -> None:
    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    worker = world.worker(provider)
    worker.archive = MemoryArchive({TASK.payment_id: known} if known else {})
    await worker.create(TASK, ORIGIN, queue=FIRST)
    assert provider.calls == calls
    found = [codec.decode(m.value, DeadLetter).reason for m in world.published if m.topic == topics.DEAD_LETTER]
    assert found == letters
    if not calls:
        assert world.changelog == {}
        assert not world.events()


async def test_the_archive_is_not_asked_about_what_the_ledger_knows() -> None:
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.RETRYABLE, OutcomeKind.APPROVED]))
    await worker.create(TASK, ORIGIN, queue=FIRST)
    worker.archive = MemoryArchive({TASK.payment_id: SETTLED})
    await worker.create(world.retries()[0], ORIGIN, queue=DUE)
    assert world.events()[max(world.events())].state is State.COMPLETED


async def test_charging_goes_on_while_the_archive_is_away() -> None:
    class Away(MemoryArchive):
        async def find(self, payment_id: str) -> Archived | None:
            raise ArchiveAway(payment_id)

    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    worker = world.worker(provider)
    worker.archive = Away()
    await worker.create(TASK, ORIGIN, queue=FIRST)
    assert provider.calls == ["charge"]


async def test_a_worker_that_is_not_sure_of_its_partition_writes_no_request() -> None:
    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED] * 2)
    worker = world.worker(provider)
    sure = iter([False, False])
    worker.holds = lambda: next(sure, True)
    await worker.create(TASK, ORIGIN, queue=FIRST)
    assert [event.type for event in world.events().values()] == [
        EventType.CALL_INTENDED,
        EventType.CALL_NOT_SENT,
        EventType.CALL_INTENDED,
        EventType.CALL_FINISHED,
    ]
    assert provider.calls == ["charge"]


async def test_a_worker_that_died_after_it_took_an_intent_back_charges_with_the_same_attempt() -> None:
    """Not sent is not unknown: no status call is made for it."""
    world = World(die_at=4)
    with pytest.raises(Crash):
        await world.worker(ScriptedProvider([PermitExpired("late")] * MOST_PERMITS)).create(TASK, ORIGIN, queue=FIRST)
    assert world.journal[-1] == "ledger:call_not_sent"
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    await world.worker(provider).create(TASK, ORIGIN, queue=FIRST)
    assert provider.calls == ["charge"]
    assert sorted(world.events()) == [2, 3, 4, 5]
    assert world.events()[5].attempt == 1
    assert not world.retries()


@pytest.mark.parametrize(("written", "calls"), [(True, "status"), (False, "charge")])
async def test_a_defect_of_an_adapter_never_decides_about_money(written: bool, calls: str) -> None:
    class Broken(ScriptedProvider):
        async def charge(
            self, task: PaymentTask, *, idempotency_key: str, before_write: Callable[[], Awaitable[None]]
        ) -> Outcome:
            if written:
                await before_write()
            raise KeyError(task.payment_id, idempotency_key)

    world = World()
    await world.worker(Broken([])).create(TASK, ORIGIN, queue=FIRST)
    (retry,) = world.retries()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    await world.worker(provider).create(retry, ORIGIN, queue=DUE)
    assert provider.calls == [calls]


async def test_a_review_is_one_letter_however_often_it_is_published() -> None:
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.REJECTED]))
    await worker.create(TASK, ORIGIN, queue=FIRST)
    await worker.create(TASK, replace(ORIGIN, offset=99), queue=FIRST)
    await worker.cancel(replace(TASK, kind=TaskKind.CANCEL), Origin(topics.cancel_topic("simulator"), 3, 1, b""))
    await world.worker(ScriptedProvider([])).create(TASK, replace(ORIGIN, offset=100), queue=FIRST)
    letters = [codec.decode(m.value, DeadLetter) for m in world.published if m.topic == topics.DEAD_LETTER]
    assert len(letters) >= 2
    assert {(letter.topic, letter.partition, letter.offset) for letter in letters} == {(ORIGIN.topic, 3, 17)}


async def test_a_cancel_publishes_neither_a_retry_nor_a_letter_in_the_payments_place() -> None:
    """Its task does not hold what the payment's own says: the payment's record comes again and publishes those."""
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.RETRYABLE]))
    await worker.create(TASK, ORIGIN, queue=FIRST)
    before = len(world.retries())
    await worker.cancel(replace(TASK, kind=TaskKind.CANCEL), Origin(topics.cancel_topic("simulator"), 3, 1, b""))
    assert len(world.retries()) == before == 1
    assert all(task.kind is TaskKind.CREATE for task in world.retries())


async def test_locks_are_for_one_at_a_time_and_forgotten_by_the_last() -> None:
    locks = Locks()
    held: list[int] = []

    async def hold(number: int) -> None:
        async with locks.of("p"):
            held.append(number)
            assert len(held) == 1
            await asyncio.sleep(0)
            held.remove(number)

    tasks = [asyncio.create_task(hold(number)) for number in range(10)]
    await asyncio.sleep(0)
    assert locks.busy("p")
    assert not locks.busy("q")
    for task in tasks[3:6]:
        task.cancel()
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert not locks.busy("p")
    async with asyncio.timeout(20), locks.of("p"):
        pass


async def test_a_payment_whose_time_is_over_fails_without_a_call() -> None:
    world = World()
    provider = ScriptedProvider([])
    await world.worker(provider).create(replace(TASK, expires_at_ms=1), ORIGIN, queue=FIRST)
    last = world.events()[max(world.events())]
    assert (last.state, last.reason, provider.calls) == (State.FAILED, "expired", [])
    assert world.published[-1].topic == topics.RESULTS


async def test_a_retry_that_was_never_sent_and_comes_due_too_late_fails_without_a_call() -> None:
    """The provider could not be reached, and meanwhile the payment's time was over."""

    class Unreachable(ScriptedProvider):
        async def charge(
            self, task: PaymentTask, *, idempotency_key: str, before_write: Callable[[], Awaitable[None]]
        ) -> Outcome:
            del task, idempotency_key, before_write
            self.calls.append("not connected")
            return Outcome(kind=OutcomeKind.RETRYABLE, reason="not-connected", sent=False)

    world = World()
    provider = Unreachable([])
    worker = world.worker(provider)
    task = replace(TASK, expires_at_ms=wall_ms() + 30_000)
    await worker.create(task, ORIGIN, queue=FIRST)
    (retry,) = world.retries()
    assert (retry.attempt, retry.expires_at_ms) == (2, task.expires_at_ms)
    worker.now_ms = lambda: wall_ms() + 30_001
    await worker.create(retry, replace(ORIGIN, topic=topics.due_topic("simulator")), queue=DUE)
    last = world.events()[max(world.events())]
    assert (last.state, last.reason, provider.calls) == (State.FAILED, "expired", ["not connected"])


@pytest.mark.parametrize("expires_in_ms", [-1, 30_000])
async def test_a_replayed_task_is_called_only_within_its_time(expires_in_ms: int) -> None:
    """A dead letter of a payment that was never sent, put back into the due topic."""
    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    task = replace(TASK, expires_at_ms=wall_ms() + expires_in_ms, replay_id="r1")
    origin = replace(ORIGIN, topic=topics.due_topic("simulator"))
    await world.worker(provider).create(task, origin, queue=DUE)
    last = world.events()[max(world.events())]
    expected = (State.COMPLETED, None, ["charge"]) if expires_in_ms > 0 else (State.FAILED, "expired", [])
    assert (last.state, last.reason, provider.calls) == expected


async def test_a_payment_whose_time_ends_in_its_slot_is_not_called() -> None:
    """The intent is durable, and just before the first byte the time is over: nothing is sent, and it fails."""

    class Slow(ScriptedProvider):
        async def charge(
            self, task: PaymentTask, *, idempotency_key: str, before_write: Callable[[], Awaitable[None]]
        ) -> Outcome:
            worker.now_ms = lambda: wall_ms() + 30_001
            return await super().charge(task, idempotency_key=idempotency_key, before_write=before_write)

    world = World()
    provider = Slow([OutcomeKind.APPROVED])
    worker = world.worker(provider)
    await worker.create(replace(TASK, expires_at_ms=wall_ms() + 30_000), ORIGIN, queue=FIRST)
    found = [(event.type, event.state) for event in world.events().values()]
    assert found == [
        (EventType.CALL_INTENDED, State.PROCESSING),
        (EventType.CALL_NOT_SENT, State.PENDING),
        (EventType.STATE_CHANGED, State.FAILED),
    ]
    assert (world.events()[max(world.events())].reason, provider.calls) == ("expired", [])


async def test_the_time_of_a_payment_that_may_have_been_charged_is_over_for_nobody() -> None:
    """Once a request may have landed, only the provider's answer ends it: the status call is made past the time."""
    world = World()
    provider = ScriptedProvider([OutcomeKind.UNKNOWN, OutcomeKind.APPROVED])
    worker = world.worker(provider)
    await worker.create(replace(TASK, expires_at_ms=wall_ms() + 30_000), ORIGIN, queue=FIRST)
    worker.now_ms = lambda: wall_ms() + 30_001
    await worker.create(world.retries()[0], replace(ORIGIN, topic=topics.due_topic("simulator")), queue=DUE)
    assert provider.calls == ["charge", "status"]
    assert world.events()[max(world.events())].state is State.COMPLETED


async def test_a_cancel_of_another_payment_under_the_same_id_is_a_dead_letter() -> None:
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.RETRYABLE]))
    await worker.create(TASK, ORIGIN, queue=FIRST)
    cancel = replace(TASK, kind=TaskKind.CANCEL, fingerprint="f2")
    await worker.cancel(cancel, Origin(topics.cancel_topic("simulator"), 3, 1, b""))
    assert world.published[-1].topic == topics.DEAD_LETTER
    assert world.events()[max(world.events())].state is State.PENDING
