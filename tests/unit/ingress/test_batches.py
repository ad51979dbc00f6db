"""Asks of one moment share a round trip; a store that fails is left alone until it was found again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from ingress.batches import LARGEST, Batches
from ingress.presence import Away, Presence


class Store:
    """Doubles numbers. ``mood`` is what it does: well, slow, broken, hung, or unwell (fails odd numbers only)."""

    def __init__(self) -> None:
        self.mood = "well"
        self.rounds: list[list[int]] = []
        self.looks = 0
        self.presence = Presence("store", self.look, rest_s=0.02, patience_s=0.2)
        self.batches: Batches[int, int] = Batches(self.presence, self.carry, timeout_s=0.2)

    async def carry(self, asks: list[int]) -> list[int | Exception]:
        self.rounds.append(asks)
        await asyncio.sleep(0.05 if self.mood == "slow" else 0.001)
        for _ in range(4):  # an answer passes through some hands of the loop
            await asyncio.sleep(0)
        if self.mood == "broken":
            raise OSError("reset")
        if self.mood == "hung":
            await asyncio.Event().wait()
        return [ValueError(ask) if self.mood == "unwell" and ask % 2 else ask * 2 for ask in asks]

    async def look(self) -> None:
        self.looks += 1
        if self.mood == "hung":
            await asyncio.Event().wait()
        if self.mood == "broken":
            raise OSError("refused")


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Store]:
    found = Store()
    yield found
    await found.presence.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_asks_of_one_moment_share_a_round_trip_and_get_their_own_answers(store: Store) -> None:
    answers = await asyncio.gather(*(store.batches.ask(number) for number in range(1000)))
    assert answers == [number * 2 for number in range(1000)]
    assert len(store.rounds) <= 1000 / LARGEST + 2
    assert max(map(len, store.rounds)) <= LARGEST


async def test_one_failed_answer_fails_one_ask(store: Store) -> None:
    store.mood = "unwell"
    answers = await asyncio.gather(*(store.batches.ask(number) for number in range(4)), return_exceptions=True)
    assert answers[0] == 0
    assert answers[2] == 4
    assert isinstance(answers[1], Away)
    assert isinstance(answers[3], Away)
    assert not store.presence.away


@pytest.mark.parametrize("mood", ["broken", "hung"])
async def test_a_failure_costs_one_wait_then_nobody_waits(store: Store, mood: str) -> None:
    store.mood = mood
    answers = await asyncio.gather(*(store.batches.ask(number) for number in range(500)), return_exceptions=True)
    assert all(isinstance(answer, Away) for answer in answers)
    assert len(store.rounds) == 1
    for _ in range(100):
        with pytest.raises(Away):
            await store.batches.ask(1)
    assert len(store.rounds) == 1


async def test_what_is_asked_for_before_it_is_awaited_fails_where_it_is_awaited(store: Store) -> None:
    store.mood = "broken"
    with pytest.raises(Away):
        await store.batches.ask(1)
    asked = [store.batches.post(number) for number in range(3)]  # away, and known to be
    for each in asked:
        with pytest.raises(Away):
            await each
    store.mood = "well"
    await until(lambda: not store.presence.away)
    asked = [store.batches.post(number) for number in range(3)]
    await until(lambda: all(each.done() for each in asked))
    assert [await each for each in asked] == [0, 2, 4]


@pytest.mark.parametrize("mood", ["broken", "hung"])
async def test_a_store_that_returns_is_found_without_an_ask(store: Store, mood: str) -> None:
    store.mood = mood
    with pytest.raises(Away):
        await store.batches.ask(1)
    await until(lambda: store.looks >= 2)
    assert store.presence.away
    store.mood = "well"
    await until(lambda: not store.presence.away)
    assert await store.batches.ask(1) == 2


async def test_a_lagging_loop_is_not_taken_for_a_slow_store(store: Store) -> None:
    store.mood = "slow"
    asking = asyncio.create_task(store.batches.ask(1))
    await until(lambda: store.rounds)
    time.sleep(0.35)  # the answer has come by now, and so has the end of the wait
    assert await asking == 2
    assert not store.presence.away


async def test_an_ask_that_nobody_waits_for_is_not_sent(store: Store) -> None:
    first = asyncio.create_task(store.batches.ask(1))
    await until(lambda: store.rounds)
    second = asyncio.create_task(store.batches.ask(2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({first, second})
    assert await store.batches.ask(3) == 6
    assert [2] not in store.rounds


async def test_looking_ends_when_the_app_ends(store: Store) -> None:
    store.mood = "hung"
    with pytest.raises(Away):
        await store.batches.ask(1)
    await until(lambda: store.looks)
    async with asyncio.timeout(20):
        await store.presence.close()
