"""What a permit costs and is spent on: turns, slots that are missed, breaker and limiter that hold calls back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from schemas.records import EventType, State
from streams import dispatch
from streams.breaker import Breaker
from streams.dispatch import wall_ms
from streams.errors import LimiterUnavailable, PermitExpired
from streams.limiter.port import Permit
from streams.providers.port import OutcomeKind
from streams.queues import FIRST, Queue
from streams.spread import GAP_S
from tests.unit.streams.world import ORIGIN, TASK, FreeLimiter, ScriptedProvider, World


class Ahead(FreeLimiter):
    """Each slot is 0.4 s ahead."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        self.asked.append(time.monotonic())
        del lead_s
        now = time.monotonic()
        return Permit(opens_at=now + 0.4, closes_at=now + 10, slot_us=int(now * 1e6))


class Full(FreeLimiter):
    """The window is full for another 0.2 s; then every slot is free."""

    def __init__(self) -> None:
        self.opens_at = time.monotonic() + 0.2
        self.apart: list[float] = []

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        asked_for = time.monotonic() + lead_s
        self.apart.append(asked_for - self.opens_at)
        self.opens_at = max(self.opens_at, asked_for)
        return Permit(opens_at=self.opens_at, closes_at=self.opens_at + 10, slot_us=int(self.opens_at * 1e6))


async def test_behind_a_full_window_slots_are_asked_for_apart() -> None:
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.APPROVED] * 6))
    worker.limiter = limiter = Full()
    tasks = [replace(TASK, payment_id=f"{TASK.payment_id[:-1]}{number}") for number in range(6)]
    await asyncio.gather(*(worker.create(task, ORIGIN, queue=FIRST) for task in tasks))
    assert limiter.apart[0] < 0  # nothing to spread yet
    assert all(apart_s >= GAP_S - 0.001 for apart_s in limiter.apart[1:])


async def test_one_late_permit_costs_another_permit_and_no_event() -> None:
    world = World()
    provider = ScriptedProvider([PermitExpired("late"), OutcomeKind.APPROVED])
    await world.worker(provider).create(TASK, ORIGIN, queue=FIRST)
    assert [event.type for event in world.events().values()] == [EventType.CALL_INTENDED, EventType.CALL_FINISHED]


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
    running = asyncio.create_task(worker.create(TASK, ORIGIN, queue=FIRST))
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
    await asyncio.wait_for(worker.create(TASK, ORIGIN, queue=FIRST), 5)
    assert [event.type for event in world.events().values()][1] is EventType.CALL_NOT_SENT
    assert provider.calls == ["charge"]


async def test_a_payment_whose_time_ends_while_it_waits_for_its_permit_is_not_called() -> None:
    world = World()
    provider = ScriptedProvider([])
    worker = world.worker(provider)
    limiter = worker.limiter = Ahead()
    task = replace(TASK, expires_at_ms=wall_ms() + 30_000)
    async with worker.turnstile.turn(FIRST):
        running = asyncio.create_task(worker.create(task, ORIGIN, queue=Queue(2)))
        await asyncio.sleep(0)
        worker.now_ms = lambda: wall_ms() + 30_001
    await asyncio.wait_for(running, 5)
    last = world.events()[max(world.events())]
    assert (last.state, last.reason, provider.calls) == (State.FAILED, "expired", [])
    assert not limiter.asked, "no slot is spent on it"


async def test_an_intent_that_missed_its_slot_has_the_next_one_however_many_wait() -> None:
    """Behind all that its partition has in hand it would wait longer than it may, at two calls a second."""

    asked: list[str] = []

    class Late(FreeLimiter):
        """The first permit is over before it can be used; the second is granted once its owner waits again."""

        async def acquire(self, lead_s: float = 0.0) -> Permit:
            task = asyncio.current_task()
            asked.append(task.get_name() if task else "")
            if len(asked) == 1:
                return Permit(opens_at=time.monotonic() - 2, closes_at=time.monotonic() - 1, slot_us=1)
            while len(asked) == 2 and not worker.turnstile._again:
                await asyncio.sleep(0)
            return await super().acquire(lead_s)

    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.APPROVED] * 4))
    worker.limiter = Late()
    tasks = [replace(TASK, payment_id=letter * 36) for letter in "abcd"]
    named = [asyncio.create_task(worker.create(task, ORIGIN, queue=FIRST), name=task.payment_id[0]) for task in tasks]
    await asyncio.wait_for(asyncio.gather(*named), 5)
    assert asked == ["a", "b", "a", "c", "d"]


async def test_the_next_turn_is_given_only_shortly_before_the_slot_of_the_one_before() -> None:
    """Meanwhile somebody of a higher level may come, and have the next one."""
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.APPROVED] * 2))
    limiter = Ahead()
    worker.limiter = limiter
    worker.lead.longest_s = 0.05
    other = replace(TASK, payment_id="b" * 36)
    await asyncio.gather(*(worker.create(task, ORIGIN, queue=FIRST) for task in (TASK, other)))
    first, second = limiter.asked
    assert second - first >= 0.4 - 2 * worker.lead.longest_s - 0.01


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
    await worker.create(TASK, ORIGIN, queue=FIRST)
    assert provider.calls == ["charge"]
