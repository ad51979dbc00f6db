"""Requests that come one after another go on together, and none waits longer than a gap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ingress.ticks import Ticks

GAP_S = 30.0


class Timers:
    """The loop's timers, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        self.set: list[tuple[float, Any]] = []
        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(loop, "call_later", lambda delay, call: self.set.append((delay, call)))

    def expire(self) -> None:
        """The one timer that is set goes off."""
        [(delay, call)] = self.set
        self.set.clear()
        self.now += delay
        call()


async def hands() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    return Timers(monkeypatch)


async def test_a_request_that_comes_alone_waits_for_nobody(timers: Timers) -> None:
    ticks = Ticks(GAP_S, GAP_S)
    for _ in range(3):
        await ticks.turn()
        timers.now += GAP_S
    assert timers.set == []


async def test_those_that_come_within_a_gap_go_on_at_the_same_tick_which_nobody_puts_off(timers: Timers) -> None:
    ticks = Ticks(GAP_S, GAP_S)
    await ticks.turn()
    for _ in range(3):
        waiting = []
        for _ in range(9):
            timers.now += GAP_S / 10
            waiting.append(asyncio.create_task(ticks.turn()))
            await hands()
            assert [delay for delay, _ in timers.set] == [pytest.approx(0.9 * GAP_S)]
        assert not any(task.done() for task in waiting)
        timers.now -= 0.9 * GAP_S - GAP_S / 10  # as the timer counts from the first that waits
        timers.expire()
        await hands()
        assert all(task.done() for task in waiting)


async def test_one_that_leaves_takes_nobody_along(timers: Timers) -> None:
    ticks = Ticks(GAP_S, GAP_S)
    await ticks.turn()
    waiting = [asyncio.create_task(ticks.turn()) for _ in range(3)]
    await hands()
    waiting[1].cancel()
    await hands()
    timers.expire()
    await hands()
    assert [task.done() and not task.cancelled() for task in waiting] == [True, False, True]
    assert waiting[1].cancelled()
    later = asyncio.create_task(ticks.turn())
    await hands()
    timers.expire()
    await hands()
    assert later.done()


async def test_the_gap_grows_with_those_that_took_the_last_tick_up_to_its_bound_and_falls_again(timers: Timers) -> None:
    ticks = Ticks(GAP_S, 3 * GAP_S)
    await ticks.turn()
    for count, gap_s in [(2, GAP_S), (1, 2 * GAP_S), (3, GAP_S), (5, 3 * GAP_S), (1, 3 * GAP_S), (1, GAP_S)]:
        waiting = [asyncio.create_task(ticks.turn()) for _ in range(count)]
        await hands()
        assert [delay for delay, _ in timers.set] == [pytest.approx(gap_s)]
        timers.expire()
        await asyncio.gather(*waiting)
    timers.now += 3 * GAP_S
    await ticks.turn()  # alone: at once
    assert timers.set == []
