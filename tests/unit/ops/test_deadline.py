"""Waits within bounds, held against ``asyncio.timeout``: both have the same cases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from ops import deadline
from ops.deadline import within

Bound = Callable[[float], AbstractAsyncContextManager[None]]
LONG_S = 30.0
SHORT_S = 0.01


@asynccontextmanager
async def ours(seconds: float) -> AsyncIterator[None]:
    with within(seconds):
        yield


@asynccontextmanager
async def theirs(seconds: float) -> AsyncIterator[None]:
    async with asyncio.timeout(seconds):
        yield


both = pytest.mark.parametrize("bound", [ours, theirs])


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@both
async def test_what_ends_in_time_is_not_touched(bound: Bound) -> None:
    async with bound(LONG_S):
        await asyncio.sleep(0)
    with pytest.raises(KeyError):
        async with bound(LONG_S):
            raise KeyError
    assert not cancelling()


@both
async def test_what_lasts_too_long_is_a_time_out_and_no_cancellation(bound: Bound) -> None:
    with pytest.raises(TimeoutError):
        async with bound(SHORT_S):
            await asyncio.sleep(LONG_S)
    assert not cancelling()
    await asyncio.sleep(0)


@both
@pytest.mark.parametrize(("outer", "inner", "which"), [(SHORT_S, LONG_S, "outer"), (LONG_S, SHORT_S, "inner")])
async def test_of_two_the_one_that_is_over_ends(bound: Bound, outer: float, inner: float, which: str) -> None:
    ended = []
    try:
        async with bound(outer):
            try:
                async with bound(inner):
                    await asyncio.sleep(LONG_S)
            except TimeoutError:
                ended.append("inner")
    except TimeoutError:
        ended.append("outer")
    assert ended == [which]


@both
async def test_another_cancellation_stays_one(bound: Bound) -> None:
    async def work() -> None:
        async with bound(LONG_S):
            await asyncio.sleep(LONG_S)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@both
async def test_one_that_is_cancelled_and_late_at_once_is_cancelled(bound: Bound) -> None:
    async def work() -> None:
        async with bound(SHORT_S):
            try:
                await asyncio.sleep(LONG_S)
            except asyncio.CancelledError:
                task.cancel()  # somebody else wants its end, too
                raise

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_thousand_waits_share_a_timer_and_none_is_left_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers: list[bool] = []
    monkeypatch.setattr(deadline, "EVERY_S", SHORT_S)
    monkeypatch.setattr(deadline._Watch, "begin", counted(deadline._Watch.begin, timers))

    async def wait() -> None:
        with within(LONG_S):
            await released.wait()

    released = asyncio.Event()
    waits = [asyncio.create_task(wait()) for _ in range(1000)]
    await asyncio.sleep(0)
    watch = deadline._WATCHES[loop]
    assert len(watch.waiting) == 1000
    assert sum(timers) == 1
    released.set()
    await asyncio.gather(*waits)
    assert not watch.waiting
    while watch._set:
        await asyncio.sleep(SHORT_S)


def counted(begin: Callable[[deadline._Watch], None], timers: list[bool]) -> Callable[[deadline._Watch], None]:
    def told(watch: deadline._Watch) -> None:
        timers.append(not watch._set)
        begin(watch)

    return told
