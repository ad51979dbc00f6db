"""A burst waits in line, in order and not for long; what is too much is refused before it costs anything."""

from __future__ import annotations

import asyncio
import time

import pytest

from ingress.gate import Gate
from ingress.problem import Problem


async def enter(gate: Gate, name: int, inside: list[int], leave: asyncio.Event) -> None:
    async with gate.enter():
        inside.append(name)
        await leave.wait()


async def until_line(gate: Gate, length: int) -> None:
    async with asyncio.timeout(5):
        while gate.waiting != length:
            await asyncio.sleep(0)


async def test_no_more_than_that_many_work_and_the_others_get_their_turn_in_order() -> None:
    gate = Gate(100, working=3)
    inside: list[int] = []
    leave = [asyncio.Event() for _ in range(20)]
    tasks = [asyncio.create_task(enter(gate, number, inside, leave[number])) for number in range(20)]
    await until_line(gate, 17)
    assert inside == [0, 1, 2]
    for number in (1, 0, 2):
        leave[number].set()
    await until_line(gate, 14)
    while len(inside) < 6:
        await asyncio.sleep(0)
    assert inside == [0, 1, 2, 3, 4, 5]
    for event in leave:
        event.set()
    await asyncio.gather(*tasks)
    assert inside == list(range(20))
    assert gate.free == 3


async def test_beyond_the_limit_a_request_is_refused_at_once() -> None:
    gate = Gate(3, working=1)
    leave = asyncio.Event()
    tasks = [asyncio.create_task(enter(gate, number, [], leave)) for number in range(3)]
    await until_line(gate, 2)
    with pytest.raises(Problem) as found:
        gate.check()
    assert (found.value.status, found.value.code, found.value.retry_after_s) == (503, "overloaded", 1)
    with pytest.raises(Problem):
        async with gate.enter():
            raise AssertionError("entered")
    leave.set()
    await asyncio.gather(*tasks)
    gate.check()


async def test_a_turn_that_does_not_come_is_not_waited_for() -> None:
    gate = Gate(10, working=1, wait_s=0.05)
    leave = asyncio.Event()
    working = asyncio.create_task(enter(gate, 0, [], leave))
    await asyncio.sleep(0)
    began = time.monotonic()
    with pytest.raises(Problem) as found:
        await enter(gate, 1, [], leave)
    assert found.value.code == "overloaded"
    assert time.monotonic() - began < 1
    leave.set()
    await working
    assert (gate.free, gate.waiting) == (1, 0)


@pytest.mark.parametrize("turn_came", [True, False])
async def test_a_request_that_is_cancelled_in_line_takes_no_place_with_it(turn_came: bool) -> None:
    gate = Gate(10, working=1)
    inside: list[int] = []
    leave = asyncio.Event()
    working = asyncio.create_task(enter(gate, 0, inside, leave))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(enter(gate, 1, inside, leave))
    await until_line(gate, 1)
    if turn_came:
        leave.set()
        while not working.done():
            await asyncio.sleep(0)
    waiting.cancel()
    leave.set()
    await asyncio.wait({working, waiting})
    assert (gate.free, gate.waiting) == (1, 0)
    await enter(gate, 2, inside, leave)
    assert 2 in inside
