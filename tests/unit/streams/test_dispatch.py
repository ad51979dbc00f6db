"""Dispatch over memory adapters: what is durable before what, and what a crash at each write leaves behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from schemas import topics
from schemas.records import EventType, State, TaskKind
from streams.dispatch import MOST_PERMITS
from streams.errors import PermitExpired
from streams.limiter.port import Permit
from streams.origin import Origin
from streams.providers.port import OutcomeKind
from streams.queues import DUE, FIRST, Queue
from tests.unit.streams.world import ORIGIN, TASK, Crash, FreeLimiter, ScriptedProvider, World


async def test_the_intent_is_durable_before_the_call_and_the_outcome_before_it_is_published() -> None:
    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    provider.before = lambda: world.journal.append("call")
    await world.worker(provider).create(TASK, ORIGIN, queue=FIRST)
    assert world.journal == [
        "ledger:call_intended",
        f"topic:{topics.EVENTS}",
        "call",
        "ledger:call_finished",
        f"topic:{topics.EVENTS}",
        f"topic:{topics.RESULTS}",
    ]
    assert [event.state for event in world.events().values()] == [State.PROCESSING, State.COMPLETED]


@pytest.mark.parametrize("die_at", [1, 2, 3, 4])
async def test_a_crash_at_any_write_neither_loses_nor_charges_anew(die_at: int) -> None:
    """The provider has charged whenever it was called; whatever the crash, one charge and one final state."""
    world = World(die_at=die_at)
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    with pytest.raises(Crash):
        await world.worker(provider).create(TASK, ORIGIN, queue=FIRST)
    charged = provider.calls.count("charge")
    again = ScriptedProvider([OutcomeKind.APPROVED])
    await world.worker(again).create(TASK, ORIGIN, queue=FIRST)
    for task in world.retries():
        await world.worker(again).create(task, ORIGIN, queue=DUE)
    assert world.events()[max(world.events())].state is State.COMPLETED
    if charged:
        assert "charge" not in again.calls
    elif die_at > 1:
        assert again.calls == ["status"]


async def test_a_worker_that_died_in_the_call_leads_to_a_status_call() -> None:
    world = World()
    with pytest.raises(Crash):
        await world.worker(ScriptedProvider([Crash()])).create(TASK, ORIGIN, queue=FIRST)
    provider = ScriptedProvider([OutcomeKind.ABSENT, OutcomeKind.APPROVED])
    await world.worker(provider).create(TASK, ORIGIN, queue=FIRST)
    assert provider.calls == []
    (retry,) = world.retries()
    await world.worker(provider).create(retry, ORIGIN, queue=DUE)
    await world.worker(provider).create(world.retries()[-1], ORIGIN, queue=DUE)
    assert provider.calls == ["status", "charge"]
    assert world.events()[max(world.events())].state is State.COMPLETED


async def test_permits_that_are_all_too_late_are_recorded_as_not_sent_and_the_attempt_runs_again() -> None:
    world = World()
    provider = ScriptedProvider([PermitExpired("late")] * MOST_PERMITS + [OutcomeKind.APPROVED])
    await world.worker(provider).create(TASK, ORIGIN, queue=FIRST)
    assert [event.type for event in world.events().values()] == [
        EventType.CALL_INTENDED,
        EventType.CALL_NOT_SENT,
        EventType.CALL_INTENDED,
        EventType.CALL_FINISHED,
    ]
    assert world.events()[5].attempt == 1


async def test_a_cancel_that_comes_while_a_task_waits_for_its_permit_wins() -> None:
    world = World()
    provider = ScriptedProvider([])
    worker = world.worker(provider)
    waiting, go_on = asyncio.Event(), asyncio.Event()

    class SlowLimiter(FreeLimiter):
        async def acquire(self, lead_s: float = 0.0) -> Permit:
            waiting.set()
            await go_on.wait()
            return await super().acquire(lead_s)

    worker.limiter = SlowLimiter()
    running = asyncio.create_task(worker.create(TASK, ORIGIN, queue=FIRST))
    await waiting.wait()
    await worker.cancel(replace(TASK, kind=TaskKind.CANCEL), Origin(topics.cancel_topic("simulator"), 3, 1, b""))
    go_on.set()
    await running
    assert provider.calls == []
    assert world.events()[max(world.events())].state is State.CANCELLED


async def test_a_cancel_after_the_call_is_answered_with_the_reason() -> None:
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.APPROVED]))
    await worker.create(TASK, ORIGIN, queue=FIRST)
    await worker.cancel(replace(TASK, kind=TaskKind.CANCEL), Origin(topics.cancel_topic("simulator"), 3, 1, b""))
    last = world.events()[max(world.events())]
    assert (last.type, last.state, last.reason) == (EventType.CANCEL_REFUSED, State.COMPLETED, "already-completed")


async def test_used_up_attempts_end_as_one_dead_letter_keyed_by_the_payment() -> None:
    world = World()
    provider = ScriptedProvider([OutcomeKind.RETRYABLE] * 3)
    worker = world.worker(provider)
    await worker.create(TASK, ORIGIN, queue=FIRST)
    for attempt in (2, 3):
        await worker.create(next(t for t in world.retries() if t.attempt == attempt), ORIGIN, queue=DUE)
    letters = [message for message in world.published if message.topic == topics.DEAD_LETTER]
    assert [letter.key for letter in letters] == [TASK.payment_id.encode()]
    assert world.events()[max(world.events())].state is State.REVIEW


async def test_a_duplicate_task_never_calls_twice() -> None:
    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    worker = world.worker(provider)
    await asyncio.gather(*(worker.create(TASK, ORIGIN, queue=queue) for queue in (DUE, FIRST, DUE)))
    assert provider.calls == ["charge"]


async def test_another_fingerprint_under_the_same_id_is_never_charged() -> None:
    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    worker = world.worker(provider)
    await worker.create(TASK, ORIGIN, queue=FIRST)
    await worker.create(replace(TASK, fingerprint="f2", amount_minor=9), ORIGIN, queue=FIRST)
    assert provider.calls == ["charge"]
    assert world.published[-1].topic == topics.DEAD_LETTER


@pytest.mark.parametrize("order", [(FIRST, Queue(2, 1)), (Queue(2, 1), FIRST)], ids=["first first", "last first"])
async def test_a_task_that_stands_in_two_queues_is_called_for_once(order: tuple[Queue, Queue]) -> None:
    """A replay of intake's may choose another queue than the first time: both agents have the task at once."""
    world = World()
    provider = ScriptedProvider([OutcomeKind.APPROVED])
    worker = world.worker(provider)
    await asyncio.gather(*(worker.create(TASK, ORIGIN, queue=queue) for queue in order))
    assert provider.calls == ["charge"]
    assert {event.state for event in world.events().values()} == {State.PROCESSING, State.COMPLETED}


async def test_the_second_of_a_task_in_two_queues_is_dropped_once_the_payment_has_gone_on() -> None:
    """Its attempt is not the next one: nothing is called, and nothing is told."""
    world = World()
    provider = ScriptedProvider([OutcomeKind.RETRYABLE, OutcomeKind.RETRYABLE])
    worker = world.worker(provider)
    await worker.create(TASK, ORIGIN, queue=FIRST)
    await worker.create(world.retries()[0], ORIGIN, queue=DUE)
    told = len(world.published)
    await worker.create(TASK, ORIGIN, queue=Queue(2, 1))
    assert provider.calls == ["charge", "charge"]
    assert len(world.published) == told
