"""Waits within bounds, held against ``asyncio.timeout``: both have the same cases."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

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
@pytest.mark.parametrize("seconds", [SHORT_S, 3 * deadline.EVERY_S])
async def test_what_lasts_too_long_is_a_time_out_and_no_cancellation(bound: Bound, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with bound(seconds):
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


@both
@pytest.mark.parametrize("seconds", [0.0, -5.0])
async def test_what_has_no_time_at_all_ends_where_it_first_waits(bound: Bound, seconds: float) -> None:
    async def work() -> None:
        async with bound(seconds):
            done.append(1)
            await asyncio.sleep(LONG_S)

    done: list[int] = []
    with pytest.raises(TimeoutError):
        await work()
    assert done


async def test_of_two_that_are_over_at_one_look_the_first_ends() -> None:
    async def inner() -> None:
        with suppress(TimeoutError), within(SHORT_S / 2):
            await asyncio.sleep(LONG_S)
        ended.append("inner")

    async def outer() -> None:
        with within(SHORT_S):
            await inner()
            await asyncio.sleep(LONG_S)

    ended: list[str] = []
    with pytest.raises(TimeoutError):  # the outer one's time is over, too, where it waits next
        await outer()
    assert ended == ["inner"]


async def test_a_bound_is_for_one_use_by_a_task() -> None:
    bound = within(LONG_S)
    with bound:
        pass
    with pytest.raises(RuntimeError), bound:
        pass


async def test_a_cancellation_that_was_swallowed_before_makes_no_time_out_of_a_later_one() -> None:
    """What a task has swallowed without ``uncancel`` stays counted: only what was added since is ours."""

    async def work() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG_S)
        with within(SHORT_S):
            await asyncio.sleep(LONG_S)
        return "not reached"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(TimeoutError):
        await task


async def test_one_that_cannot_be_cancelled_takes_nobody_elses_time_out_away() -> None:
    class Stubborn(asyncio.Future[None]):
        def cancel(self, msg: object = None) -> bool:
            raise KeyError(msg)

    async def wait(future: asyncio.Future[None]) -> None:
        with within(SHORT_S):
            await future

    stubborn = Stubborn()
    stuck = asyncio.create_task(wait(stubborn))
    for _ in range(2):  # at the same look, and at one after it
        with pytest.raises(TimeoutError):
            await wait(asyncio.get_running_loop().create_future())
    stubborn.set_result(None)
    await asyncio.wait({stuck})


def test_a_loop_that_has_ended_is_kept_by_nobody() -> None:
    async def work() -> weakref.ref[asyncio.AbstractEventLoop]:
        with within(LONG_S):
            await asyncio.sleep(0)
        return weakref.ref(asyncio.get_running_loop())

    ended = [asyncio.run(work()) for _ in range(3)]
    gc.collect()
    assert not any(each() for each in ended)


async def test_a_thousand_waits_share_a_timer_and_none_is_left_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    with within(LONG_S):
        watch = deadline._WATCHES[loop]
    while watch._set:
        await asyncio.sleep(SHORT_S)
    monkeypatch.setattr(deadline, "EVERY_S", SHORT_S)
    timers: list[float] = []
    later = loop.call_later

    def counted(seconds: float, *what: Any) -> asyncio.TimerHandle:
        timers.append(seconds)
        return later(seconds, *what)

    monkeypatch.setattr(loop, "call_later", counted)

    async def wait() -> None:
        with within(LONG_S):
            await released.wait()

    released = asyncio.Event()
    waits = [asyncio.create_task(wait()) for _ in range(1000)]
    await asyncio.sleep(0)
    assert len(watch.waiting) == 1000
    assert timers == [SHORT_S]
    released.set()
    await asyncio.gather(*waits)
    assert not watch.waiting
    while watch._set:
        await asyncio.sleep(SHORT_S)


@pytest.mark.parametrize("lag_s", [0.15, 0.3, 0.6])
async def test_a_lag_of_any_length_leaves_the_patient_time_to_see_the_answer(lag_s: float) -> None:
    async def wait(bound: within) -> None:
        with bound:
            for _ in range(5):  # an answer passes through some hands of the loop
                await asyncio.sleep(0.001)

    for look_early in (False, True):
        waiting = asyncio.create_task(wait(within(0.1, patient=True)))
        await asyncio.sleep(0)
        time.sleep(lag_s)  # the loop lags; the answer has come by now
        if look_early:
            with pytest.raises(TimeoutError), within(0.0):
                await asyncio.sleep(LONG_S)
        await waiting


async def test_while_the_loop_lags_only_the_patient_give_the_other_side_that_time_again() -> None:
    async def wait(bound: within) -> str:
        with bound:
            await answer.wait()
        return "answered"

    answer = asyncio.Event()
    loop = asyncio.get_running_loop()
    waits = [asyncio.create_task(wait(within(0.1, patient=patient))) for patient in (True, False)]
    await asyncio.sleep(0)
    loop.call_later(0.12, answer.set)
    time.sleep(0.11)  # the loop lags past the end of both, and comes back before the answer
    found = await asyncio.gather(*waits, return_exceptions=True)
    assert found[0] == "answered"
    assert isinstance(found[1], TimeoutError)


async def test_patience_lasts_once_as_long_as_the_wait() -> None:
    async def lag() -> None:
        while True:
            time.sleep(2 * deadline.EVERY_S)  # it blocks the loop: that is the lag
            await asyncio.sleep(0)

    lagging = asyncio.create_task(lag())
    began = time.monotonic()
    with pytest.raises(TimeoutError), within(0.3, patient=True):
        await asyncio.Event().wait()
    assert 0.5 < time.monotonic() - began < 5
    lagging.cancel()
