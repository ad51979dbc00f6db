"""Requests that come one after another go on together, and none waits longer than a gap."""

from __future__ import annotations

import asyncio
import itertools

from ingress.ticks import Ticks

GAP_S = 0.05


async def test_a_request_that_comes_alone_waits_for_nobody() -> None:
    ticks = Ticks(60.0)
    async with asyncio.timeout(5):
        await ticks.turn()


async def test_those_that_come_within_a_gap_go_on_at_the_same_tick() -> None:
    ticks, loop = Ticks(GAP_S), asyncio.get_running_loop()
    gone: list[tuple[int, float]] = []

    async def request(number: int) -> None:
        await ticks.turn()
        gone.append((number, loop.time()))

    requests = []
    for number in range(30):
        requests.append(asyncio.create_task(request(number)))
        await asyncio.sleep(GAP_S / 10)
    await asyncio.gather(*requests)
    assert [number for number, _ in gone] == list(range(30))
    ticked = sorted({round(at, 3) for _, at in gone})
    assert len(ticked) <= 30 / 2
    assert all(later - at > GAP_S / 2 for at, later in itertools.pairwise(ticked))


async def test_one_that_leaves_takes_nobody_along() -> None:
    ticks = Ticks(GAP_S)
    await ticks.turn()
    waiting = [asyncio.create_task(ticks.turn()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None), asyncio.CancelledError, type(None)]
    async with asyncio.timeout(5):
        await ticks.turn()
