"""The loops of agents: what is acked when, and how they end."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from ops.kafka import agents


@dataclass
class App:
    """What an agent knows of its app and consumer."""

    acked: list[int] = field(default_factory=list)
    stale: set[int] = field(default_factory=set)
    failure: BaseException | None = None
    on_fail: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def consumer(self) -> App:
        return self

    def takes(self, message: int) -> bool:
        return message not in self.stale

    def handed_off(self, message: int) -> None:
        self.acked.append(message)

    def fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self.on_fail.set()


@dataclass
class Event:
    app: App
    message: int


@dataclass
class Stream:
    """A stream of Faust's: gives what is put into it, one by one, and notes when its generator was closed."""

    app: App
    queue: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    current_event: Event | None = None
    closed: bool = False

    def noack(self) -> Stream:
        return self

    @property
    def channel(self) -> Stream:
        return self

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        end = asyncio.create_task(self.ended.wait())
        try:
            while not (end.done() and self.queue.empty()):
                getting = asyncio.create_task(self.queue.get())
                await asyncio.wait({end, getting}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    continue
                self.current_event = getting.result()
                yield self.current_event.message
                self.current_event = None
        finally:
            end.cancel()
            self.closed = True

    def put(self, *messages: int | None) -> None:
        for message in messages:
            if message is None:
                self.ended.set()
            else:
                self.queue.put_nowait(Event(self.app, message))


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def stream(app: App) -> Stream:
    return Stream(app)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def one_by_one(app: Any, handle: Callable[[Any], Any]) -> agents.Agent:
    return agents.in_order(app, handle)


def three_at_once(app: Any, handle: Callable[[Any], Any]) -> agents.Agent:
    return agents.in_order(app, handle, most=3)


def in_batches(app: Any, handle: Callable[[Any], Any], most: int = 3) -> agents.Agent:
    return agents.in_batches(app, handle, most=most, within_s=0.0)


async def test_a_record_is_acked_after_its_handoff_and_before_the_next_one(app: App, stream: Stream) -> None:
    journal: list[str] = []

    async def handle(message: int) -> None:
        journal.append(f"{message} after {app.acked}")

    stream.put(1, 2, 3, None)
    await one_by_one(app, handle)(stream)
    assert journal == ["1 after []", "2 after [1]", "3 after [1, 2]"]
    assert app.acked == [1, 2, 3]
    assert stream.closed


async def test_so_many_are_in_hand_at_once_and_each_is_acked_after_those_before_it(app: App, stream: Stream) -> None:
    begun, go_on = list[int](), {message: asyncio.Event() for message in range(1, 6)}
    done: list[int] = []

    async def handle(message: int) -> None:
        begun.append(message)
        await go_on[message].wait()
        done.append(message)

    stream.put(1, 2, 3, 4, 5)
    running = asyncio.create_task(three_at_once(app, handle)(stream))
    await until(lambda: begun == [1, 2, 3])
    for message in (3, 2):
        go_on[message].set()
    await until(lambda: done == [3, 2])
    await asyncio.sleep(0.01)
    assert (app.acked, begun) == ([], [1, 2, 3]), "what is done behind the first one is in hand still"
    go_on[1].set()
    await until(lambda: app.acked == [1, 2, 3] and begun == [1, 2, 3, 4, 5])
    go_on[5].set()
    stream.put(None)
    await asyncio.sleep(0.01)
    assert app.acked == [1, 2, 3]
    go_on[4].set()
    await asyncio.wait_for(running, 5)
    assert (app.acked, app.failure, stream.closed) == ([1, 2, 3, 4, 5], None, True)


async def test_an_error_acks_neither_its_record_nor_those_behind_it_and_lets_go_of_all(
    app: App, stream: Stream
) -> None:
    dropped: list[int] = []
    go_on = asyncio.Event()

    async def handle(message: int) -> None:
        if message == 2:
            await go_on.wait()
            raise ValueError(message)
        try:
            await asyncio.sleep(60 if message == 1 else 0)
        except asyncio.CancelledError:
            dropped.append(message)
            raise ValueError("it falls over its cancellation") from None

    stream.put(1, 2, 3, 4)
    running = asyncio.create_task(three_at_once(app, handle)(stream))
    await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.wait_for(running, 5)
    assert (app.acked, dropped, stream.closed) == ([], [1], True)
    assert (type(app.failure), str(app.failure)) == (ValueError, "2")


async def test_records_at_once_have_a_context_each(app: App, stream: Stream) -> None:
    word: contextvars.ContextVar[int] = contextvars.ContextVar("word")
    seen: list[tuple[int, int]] = []

    async def handle(message: int) -> None:
        word.set(message)
        await asyncio.sleep(0.01)
        seen.append((message, word.get()))

    stream.put(1, 2, 3, None)
    await three_at_once(app, handle)(stream)
    assert seen == [(1, 1), (2, 2), (3, 3)]


async def test_batches_hold_what_is_there_up_to_the_most_and_are_acked_whole(app: App, stream: Stream) -> None:
    batches: list[list[int]] = []

    async def handle(messages: list[int]) -> None:
        assert app.acked == [message for batch in batches for message in batch]
        batches.append(messages)
        if len(batches) == 1:
            stream.put(8)

    stream.put(1, 2, 3, 4, 5, 6, 7)
    running = asyncio.create_task(in_batches(app, handle)(stream))
    await until(lambda: len(app.acked) == 8)
    assert [message for batch in batches for message in batch] == list(range(1, 9))
    assert max(map(len, batches)) == 3
    stream.put(9)
    await until(lambda: 9 in app.acked)
    assert batches[-1] == [9]
    stream.put(None)
    await asyncio.wait_for(running, 5)
    assert stream.closed


async def test_what_a_rebalance_made_void_is_left_out_of_a_batch(app: App, stream: Stream) -> None:
    batches: list[list[int]] = []

    async def handle(messages: list[int]) -> None:
        batches.append(messages)

    app.stale = {2, 3}
    stream.put(1, 2, 3, 4)
    running = asyncio.create_task(in_batches(app, handle)(stream))
    await until(lambda: 4 in app.acked)
    stream.put(None)
    await asyncio.wait_for(running, 5)
    assert batches == [[1, 4]]


@pytest.mark.parametrize("make", [one_by_one, three_at_once, in_batches])
@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt()])
async def test_an_error_ends_the_role_and_acks_nothing(
    app: App, stream: Stream, make: Callable[..., agents.Agent], error: BaseException
) -> None:
    async def handle(_: Any) -> None:
        raise error

    stream.put(1, 2)
    await asyncio.wait_for(make(app, handle)(stream), 5)
    assert app.failure is error
    assert app.acked == []
    assert stream.closed


@pytest.mark.parametrize("make", [one_by_one, three_at_once, in_batches])
async def test_a_cancelled_agent_ends_in_order_closes_its_stream_and_acks_nothing(
    app: App, stream: Stream, make: Callable[..., agents.Agent]
) -> None:
    """A task that ended with a cancellation would be started again by Faust, for a partition that is gone."""
    begun = asyncio.Event()

    async def handle(_: Any) -> None:
        begun.set()
        await asyncio.sleep(60)

    stream.put(1, 2)
    running = asyncio.create_task(make(app, handle)(stream))
    await begun.wait()
    running.cancel()
    await asyncio.wait_for(running, 5)
    assert not running.cancelled()
    assert (app.acked, app.failure, stream.closed) == ([], None, True)


@pytest.mark.parametrize("make", [one_by_one, three_at_once, in_batches])
async def test_an_agent_that_is_cancelled_while_idle_closes_its_stream(
    app: App, stream: Stream, make: Callable[..., agents.Agent]
) -> None:
    async def handle(_: Any) -> None:
        raise AssertionError

    running = asyncio.create_task(make(app, handle)(stream))
    await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait_for(running, 5)
    assert (app.failure, stream.closed) == (None, True)


async def test_while_a_batch_is_handed_off_no_more_than_the_next_one_is_taken(app: App, stream: Stream) -> None:
    go_on = asyncio.Event()

    async def handle(_: list[int]) -> None:
        await go_on.wait()

    stream.put(*range(100))
    running = asyncio.create_task(in_batches(app, handle)(stream))
    await asyncio.sleep(0.05)
    assert stream.queue.qsize() >= 100 - 4
    go_on.set()
    await until(lambda: len(app.acked) == 100)
    assert app.acked == list(range(100))
    running.cancel()
    await asyncio.wait({running})
