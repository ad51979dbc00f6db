"""Dispatch when something is late, away, stopped, defect, forgotten or cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from schemas import codec, topics
from schemas.records import DeadLetter, EventType, PaymentTask, State, TaskKind
from streams import dispatch
from streams.breaker import Breaker
from streams.dispatch import MOST_PERMITS, Origin, wall_ms
from streams.errors import ArchiveAway, LimiterUnavailable, PermitExpired
from streams.limiter.port import Permit
from streams.locks import Locks
from streams.providers.port import Outcome, OutcomeKind
from streams.stores.archive import Archived, MemoryArchive
from tests.unit.streams.world import ORIGIN, TASK, Crash, FreeLimiter, ScriptedProvider, World

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
    await worker.create(TASK, ORIGIN, due=False)
    assert provider.calls == calls
    found = [codec.decode(m.value, DeadLetter).reason for m in world.published if m.topic == topics.DEAD_LETTER]
    assert found == letters
    if not calls:
        assert world.changelog == {}
        assert not world.events()


async def test_the_archive_is_not_asked_about_what_the_ledger_knows() -> None:
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.RETRYABLE, OutcomeKind.APPROVED]))
    await worker.create(TASK, ORIGIN, due=False)
    worker.archive = MemoryArchive({TASK.payment_id: SETTLED})
    await worker.create(world.retries()[0], ORIGIN, due=True)
    assert world.events()[max(world.events())].state is State.COMPLETED


async def test_charging_goes_on_while_the_archive_is_away() -> None:
    class Away(MemoryArchive):
        async def find(self, payment_id: str) -> Archived | None:
            raise ArchiveAway(payment_id)

    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    worker = world.worker(provider)
    worker.archive = Away()
    await worker.create(TASK, ORIGIN, due=False)
    assert provider.calls == ["charge"]


async def test_a_worker_that_is_not_sure_of_its_partition_writes_no_request() -> None:
    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED] * 2)
    worker = world.worker(provider)
    sure = iter([False, False])
    worker.holds = lambda: next(sure, True)
    await worker.create(TASK, ORIGIN, due=False)
    assert [event.type for event in world.events().values()] == [
        EventType.CALL_INTENDED,
        EventType.CALL_NOT_SENT,
        EventType.CALL_INTENDED,
        EventType.CALL_FINISHED,
    ]
    assert provider.calls == ["charge"]


async def test_one_late_permit_costs_another_permit_and_no_event() -> None:
    world = World()
    provider = ScriptedProvider([PermitExpired("late"), OutcomeKind.APPROVED])
    await world.worker(provider).create(TASK, ORIGIN, due=False)
    assert [event.type for event in world.events().values()] == [EventType.CALL_INTENDED, EventType.CALL_FINISHED]


async def test_a_worker_that_died_after_it_took_an_intent_back_charges_with_the_same_attempt() -> None:
    """Not sent is not unknown: no status call is made for it."""
    world = World(die_at=4)
    with pytest.raises(Crash):
        await world.worker(ScriptedProvider([PermitExpired("late")] * MOST_PERMITS)).create(TASK, ORIGIN, due=False)
    assert world.journal[-1] == "ledger:call_not_sent"
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    await world.worker(provider).create(TASK, ORIGIN, due=False)
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
    await world.worker(Broken([])).create(TASK, ORIGIN, due=False)
    (retry,) = world.retries()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    await world.worker(provider).create(retry, ORIGIN, due=True)
    assert provider.calls == [calls]


async def test_a_review_is_one_letter_however_often_it_is_published() -> None:
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.REJECTED]))
    await worker.create(TASK, ORIGIN, due=False)
    await worker.create(TASK, replace(ORIGIN, offset=99), due=False)
    await worker.cancel(replace(TASK, kind=TaskKind.CANCEL), Origin(topics.cancel_topic("simulator"), 3, 1, b""))
    await world.worker(ScriptedProvider([])).create(TASK, replace(ORIGIN, offset=100), due=False)
    letters = [codec.decode(m.value, DeadLetter) for m in world.published if m.topic == topics.DEAD_LETTER]
    assert len(letters) >= 2
    assert {(letter.topic, letter.partition, letter.offset) for letter in letters} == {(ORIGIN.topic, 3, 17)}


async def test_a_cancel_publishes_neither_a_retry_nor_a_letter_in_the_payments_place() -> None:
    """Its task does not hold what the payment's own says: the payment's record comes again and publishes those."""
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.RETRYABLE]))
    await worker.create(TASK, ORIGIN, due=False)
    before = len(world.retries())
    await worker.cancel(replace(TASK, kind=TaskKind.CANCEL), Origin(topics.cancel_topic("simulator"), 3, 1, b""))
    assert len(world.retries()) == before == 1
    assert all(task.kind is TaskKind.CREATE for task in world.retries())


async def test_an_open_breaker_burns_no_permits() -> None:
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.APPROVED]))
    now = 0.0
    worker.breaker = Breaker(lambda: now)
    for _ in range(10):
        worker.breaker.leave(worker.breaker.enter(), ok=False)
    asked = 0

    class Counting(FreeLimiter):
        async def acquire(self, lead_s: float = 0.0) -> Permit:
            nonlocal asked
            asked += 1
            return await super().acquire(lead_s)

    worker.limiter = Counting()
    running = asyncio.create_task(worker.create(TASK, ORIGIN, due=False))
    for _ in range(20):
        await asyncio.sleep(0)
    assert (asked, world.published) == (0, [])
    now = 5.0
    await asyncio.wait_for(running, 5)
    assert asked == 1
    assert not worker.breaker.is_open


async def test_an_intent_that_gets_no_second_permit_in_time_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its payment is locked meanwhile: a cancel must not wait for a breaker."""
    monkeypatch.setattr(dispatch, "AGAIN_S", 0.05)

    class Once(FreeLimiter):
        granted = 0

        async def acquire(self, lead_s: float = 0.0) -> Permit:
            Once.granted += 1
            if Once.granted == 2:
                await asyncio.sleep(60)
            return await super().acquire(lead_s)

    world = World()
    provider = ScriptedProvider([PermitExpired("late"), OutcomeKind.APPROVED])
    worker = world.worker(provider)
    worker.limiter = Once()
    await asyncio.wait_for(worker.create(TASK, ORIGIN, due=False), 5)
    assert [event.type for event in world.events().values()][1] is EventType.CALL_NOT_SENT
    assert provider.calls == ["charge"]


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
    await world.worker(provider).create(replace(TASK, expires_at_ms=1), ORIGIN, due=False)
    last = world.events()[max(world.events())]
    assert (last.state, last.reason, provider.calls) == (State.FAILED, "expired", [])
    assert world.published[-1].topic == topics.RESULTS


async def test_past_the_keys_lifetime_nobody_is_charged_anew_but_a_person_is_asked() -> None:
    """The provider has forgotten the key: what it does not know any more may have been charged all the same."""
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.UNKNOWN, OutcomeKind.ABSENT]))
    await worker.create(TASK, ORIGIN, due=False)
    worker.now_ms = lambda: wall_ms() + 61_000
    for attempt in (2, 3):
        retry = next(task for task in world.retries() if task.attempt == attempt)
        await worker.create(retry, replace(ORIGIN, topic=topics.due_topic("simulator")), due=True)
    last = world.events()[max(world.events())]
    assert (last.state, last.reason) == (State.REVIEW, "key-expired")
    (message,) = (m for m in world.published if m.topic == topics.DEAD_LETTER)
    assert message.key == TASK.payment_id.encode()


async def test_a_cancel_of_another_payment_under_the_same_id_is_a_dead_letter() -> None:
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.RETRYABLE]))
    await worker.create(TASK, ORIGIN, due=False)
    cancel = replace(TASK, kind=TaskKind.CANCEL, fingerprint="f2")
    await worker.cancel(cancel, Origin(topics.cancel_topic("simulator"), 3, 1, b""))
    assert world.published[-1].topic == topics.DEAD_LETTER
    assert world.events()[max(world.events())].state is State.PENDING


async def test_while_the_limiters_store_is_away_nothing_is_written_and_nothing_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "LIMITER_REST_S", 0.0)

    class Away(FreeLimiter):
        tries = 0

        async def acquire(self, lead_s: float = 0.0) -> Permit:
            Away.tries += 1
            if Away.tries <= 3:
                assert world.journal == []
                raise LimiterUnavailable
            return await super().acquire(lead_s)

    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    worker = world.worker(provider)
    worker.limiter = Away()
    await worker.create(TASK, ORIGIN, due=False)
    assert provider.calls == ["charge"]
