"""Patience: PostgreSQL may be away for two minutes, one batch asks for all, readiness is what the last try found."""

from __future__ import annotations

import asyncio

import pytest

from sinks import patience, rows
from sinks.patience import PATIENCE_S, Patience
from sinks.postgres import Away, Refused
from tests.unit.sinks.cases import Memory, event, records

BATCH = rows.batch(records(event()))


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def patient(memory: Memory) -> tuple[Patience, Clock]:
    clock = Clock()
    return Patience(memory, clock=clock, sleep=clock.sleep), clock


async def test_an_outage_of_a_minute_is_waited_for_and_soon_noticed_to_be_over() -> None:
    memory = Memory(away=60)
    found, clock = patient(memory)
    assert await found.write(BATCH) == {"payments": 1}
    assert found.reachable
    assert memory.written == [BATCH]
    assert clock.slept[:5] == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert max(clock.slept) == patience.LONGEST_S


async def test_patience_ends_and_nothing_is_written() -> None:
    memory = Memory(away=10**6)
    found, clock = patient(memory)
    with pytest.raises(Away):
        await found.write(BATCH)
    assert PATIENCE_S <= clock.now < PATIENCE_S + 1
    assert not found.reachable
    assert memory.written == []


async def test_a_refusal_is_no_absence() -> None:
    found, clock = patient(Memory(lambda _: True))
    with pytest.raises(Refused):
        await found.write(BATCH)
    assert clock.slept == []


async def test_one_batch_asks_for_all_that_wait() -> None:
    memory = Memory()
    found, _ = patient(memory)
    await found.look()
    memory.away = 20
    await asyncio.gather(*(found.write(BATCH) for _ in range(8)))
    assert len(memory.written) == 8
    assert memory.tries == 20 + 8


async def test_a_batch_that_is_revoked_while_it_waits_leaves_the_line_to_the_others() -> None:
    memory = Memory(away=10**6)
    found, _ = patient(memory)
    first, second = (asyncio.create_task(found.write(BATCH)) for _ in range(2))
    for _ in range(20):
        await asyncio.sleep(0)
    first.cancel()
    memory.away = 0
    assert await second == {"payments": 1}
    assert first.cancelled() or (await asyncio.wait({first}) and first.cancelled())


async def test_it_is_not_reachable_before_it_was_reached_nor_after_it_went_while_nothing_was_written() -> None:
    memory = Memory()
    found, _ = patient(memory)
    assert not found.reachable
    await found.look()
    assert found.reachable
    memory.away = 1
    await found.look()
    assert not found.reachable
    await found.look()
    assert found.reachable


async def test_the_watch_looks_on_for_ever() -> None:
    memory = Memory(away=3)
    found, clock = patient(memory)
    watching = asyncio.create_task(found.watch())
    while len(clock.slept) < 5:
        await asyncio.sleep(0)
    watching.cancel()
    assert clock.slept[:5] == [patience.LONGEST_S] * 3 + [patience.LOOK_S] * 2
