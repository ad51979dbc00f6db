"""The loop of an agent: records out of Faust, a few at a time or in batches, acked in their order.

No exception leaves it: an error ends the process and the offsets stay. A cancellation says that the partition is gone,
or that the role stops, and ends the loop in order: let out, Faust takes it for a crash, starts an agent anew for the
partition that is gone, and falls over that in the next rebalance.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, cast

from ops.failpoints import Failpoint
from ops.kafka.faust_app import App, ack

BEFORE_ACK: Final = Failpoint("agent.before-ack")
AFTER_ACK: Final = Failpoint("agent.after-ack")

Agent = Callable[[Any], Coroutine[Any, Any, None]]


def in_order(app: App, handle: Callable[[Any], Awaitable[None]], *, most: int = 1) -> Agent:
    """An agent with up to ``most`` records in hand, each acked after those before it. ``handle`` gets Faust's message.

    What two records in hand have in common, a payment perhaps, ``handle`` has to guard itself.
    """

    async def agent(stream: Any) -> None:
        records = stream.noack()
        hand = _Hand(app, handle)
        try:
            async with aclosing(_values(records)) as values:
                async for _ in values:
                    hand.take(records.current_event)
                    await hand.fewer_than(most)
            await hand.fewer_than(1)
        except asyncio.CancelledError:
            return
        except BaseException as error:  # noqa: BLE001 - whatever it is
            app.fail(error)
        finally:
            await hand.drop()

    return agent


def in_batches(app: App, handle: Callable[[list[Any]], Awaitable[None]], *, most: int, within_s: float) -> Agent:
    """An agent that hands off up to ``most`` records at once; the first of them waits ``within_s`` for the others.

    Faust's own ``take_events`` acks a batch however it ended, and reads on after the agent has gone.
    """

    async def agent(stream: Any) -> None:
        basket = _Basket(stream.noack(), most)
        taking = asyncio.create_task(basket.fill())
        try:
            while await basket.filled(taking):
                if len(basket.events) < most:
                    await asyncio.sleep(within_s)
                events = basket.events[:most]
                await handle([event.message for event in events])
                await BEFORE_ACK.reach()
                for event in events:
                    ack(event)
                await AFTER_ACK.reach()
                basket.done(len(events))
        except asyncio.CancelledError:
            return
        except BaseException as error:  # noqa: BLE001 - whatever it is
            app.fail(error)
        finally:
            taking.cancel()
            await asyncio.wait({taking})

    return agent


class _Hand:
    """Events of one partition, each handled by a task of its own. An error in one of them ends the loop."""

    def __init__(self, app: App, handle: Callable[[Any], Awaitable[None]]) -> None:
        self._app = app
        self._handle = handle
        self._loop = asyncio.current_task()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._broken = False

    def take(self, event: Any) -> None:
        """Begin with the next one."""
        before = next(reversed(self._tasks), None)
        task = asyncio.create_task(self._one(event, before))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def fewer_than(self, most: int) -> None:
        """Wait until fewer than so many are in hand."""
        while len(self._tasks) >= most:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def drop(self) -> None:
        """Cancel what is in hand, and wait until it is."""
        self._broken = True
        left = list(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _one(self, event: Any, before: asyncio.Task[None] | None) -> None:
        try:
            await self._handle(event.message)
            if before is not None:
                await asyncio.wait({before})
            if not self._broken:
                await BEFORE_ACK.reach()
                ack(event)
                await AFTER_ACK.reach()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is
            ending, self._broken = self._broken, True
            self._app.fail(error)
            if not ending and self._loop is not None:
                self._loop.cancel()


class _Basket:
    """Events of a stream that wait for their handoff, ``most`` at once."""

    def __init__(self, records: Any, most: int) -> None:
        self.events: list[Any] = []
        self._records = records
        self._most = most
        self._some = asyncio.Event()
        self._room = asyncio.Event()

    async def fill(self) -> None:
        """Take events until the stream ends: one as the stream gives it, others that wait straight from its queue."""
        async with aclosing(_values(self._records)) as values:
            async for _ in values:
                self.events.append(self._records.current_event)
                self._take_waiting()
                self._some.set()
                while len(self.events) >= self._most:
                    self._room.clear()
                    await self._room.wait()

    def _take_waiting(self) -> None:
        queue = self._records.channel.queue
        while len(self.events) < self._most and not queue.empty():
            event = queue.get_nowait()
            if event.app.consumer.takes(event.message):
                self.events.append(event)

    async def filled(self, taking: asyncio.Task[None]) -> bool:
        """Wait for events. False: the stream has ended. Raises what ended it."""
        if not self._some.is_set():
            waiting = asyncio.create_task(self._some.wait())
            try:
                await asyncio.wait({waiting, taking}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
        if taking.done():
            taking.result()
        return not taking.done()

    def done(self, count: int) -> None:
        """The first events are handed off."""
        del self.events[:count]
        self._room.set()
        if not self.events:
            self._some.clear()


def _values(records: Any) -> AsyncGenerator[Any, None]:
    """The stream's own generator: closed at once when the loop ends, so that Faust forgets its channel."""
    return cast("AsyncGenerator[Any, None]", aiter(records))
