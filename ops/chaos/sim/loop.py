"""An event loop in virtual time whose processes can be stopped and killed at any of their steps.

Time passes only while nobody has anything to do, and then at once. A process is a context: what it schedules is known
to be its own, is held while it is stopped (SIGSTOP), and is never run again once it is dead (SIGKILL): no ``finally``
of it, no ``except``, just as in the real world.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Final, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Process:
    """One process. ``stopped_until`` is the loop's time; ``doom`` befalls it after ``writes_left`` writes."""

    name: str
    dead: bool = False
    stopped_until: float = 0.0
    writes_left: int = 0
    doom: Callable[[], None] = lambda: None
    _context: Context | None = None

    def writes(self) -> None:
        """It writes something to the outside world."""
        self.writes_left -= 1
        if self.writes_left == 0:
            self.doom()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run this as the process."""
        return running().create_task(work, context=self._own())

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Let the process do this."""
        if self._context is None:
            self._context = self._own()
        running().call_later(seconds, act, context=self._context)

    def _own(self) -> Context:
        context = copy_context()
        context.run(_RUNNING.set, self)
        return context


_RUNNING: Final[ContextVar[Process | None]] = ContextVar("process", default=None)


def current() -> Process | None:
    """The process that runs; None for the world around them."""
    return _RUNNING.get()


class Deadlock(Exception):
    """Nobody will ever have anything to do again, and the work is not done."""


class _Handle(asyncio.Handle):
    """asyncio's, without what it does for its debug mode: a life makes thousands."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: Loop, context: Context | None) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = self._source_traceback = None


class _TimerHandle(asyncio.TimerHandle):
    """The same of asyncio's timers."""

    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: Loop, context: Context | None) -> None:
        _Handle.__init__(self, callback, args, loop, context)  # type: ignore[arg-type]  # the same slots
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = None, ()


class _Nothing(selectors.BaseSelector):
    """Nobody is waited for."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> Any:
        return {}

    def select(self, timeout: float | None = None) -> list[Any]:  # noqa: ARG002 - as the base has it
        return []


_living: list[Loop] = []


class Loop(asyncio.SelectorEventLoop):
    """The loop; ``now`` is its time in seconds."""

    now = 0.0
    over = False

    def __init__(self) -> None:
        super().__init__(_Nothing())
        self._world: Context = Context()
        self._tasks: list[asyncio.Task[Any]] = []
        self._ready: deque[asyncio.Handle]
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self.dropped: list[asyncio.Handle] = []
        self.set_task_factory(self._remembered)

    def live(self, work: Coroutine[Any, Any, T]) -> T:
        """Run this from moment 0 on, then end all that lives or has died. Raises Deadlock."""
        self.now, self.over = 0.0, False
        _living.append(self)
        try:
            return self.run_until_complete(work)
        finally:
            self.over = True  # nobody is dead any more: a coroutine that is never ended is trouble for the collector
            for task in self._tasks:
                task.cancel()
            self._ready.extend(self.dropped)
            self.dropped.clear()
            self.run_until_complete(asyncio.wait(self._tasks))
            self._tasks.clear()
            self._ready.clear()
            self._timers.clear()
            _living.remove(self)

    def _run_once(self) -> None:
        """One round, as asyncio's own, but time passes instead of being waited for. Raises Deadlock.

        Cancelled timers stay until they are due: to sweep them is no faster.
        """
        ready, timers, now = self._ready, self._timers, self.now
        if not ready:
            while timers and timers[0][2]._cancelled:  # noqa: SLF001 - as asyncio does
                heapq.heappop(timers)
            if not timers:
                raise Deadlock
            self.now = now = max(now, timers[0][0])
        while timers and timers[0][0] <= now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:  # noqa: SLF001 - as asyncio does
                self._step(handle)

    def _step(self, handle: asyncio.Handle) -> None:
        """Run it, if its process is alive and not stopped."""
        process = handle._context.get(_RUNNING)  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio knows no processes
        if process is not None and not self.over:
            if process.dead:
                self.dropped.append(handle)
                return
            if process.stopped_until > self.now:
                self.call_world(process.stopped_until, lambda: None if handle.cancelled() else self._step(handle))
                return
        handle._run()  # noqa: SLF001 - as asyncio does

    def _remembered(self, loop: Any, work: Any, **more: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
        if not self.over:
            self._tasks.append(task)
        return task

    def time(self) -> float:
        """Virtual seconds."""
        return self.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's, for the process that calls."""
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, for the process that calls. Timers of one moment run in the order in which they were set."""
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, for the process that calls."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_world(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Let something happen in the world, whoever lives then."""
        return self.call_at(when, callback, context=self._world)


def running() -> Loop:
    """The loop that lives. Raises TypeError where there is none.

    asyncio's own way asks the kernel each time which process this is.
    """
    if not _living:
        raise TypeError("not in virtual time")
    return _living[-1]


async def sleep(seconds: float) -> None:
    """As asyncio's, which asks the kernel each time."""
    loop = running()
    over: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(seconds, lambda: None if over.done() else over.set_result(None))
    try:
        await over
    finally:
        timer.cancel()


async def within(seconds: float, answer: asyncio.Future[T]) -> T:
    """The answer. Raises TimeoutError where it has not come.

    Nor does it count where the process was stopped when it came, and past its time when it goes on: as in asyncio, who
    is late looks at the clock first.
    """
    late = False

    def expire() -> None:
        nonlocal late
        late = True
        if not answer.done():
            answer.set_exception(TimeoutError())

    timer = running().call_later(seconds, expire)
    try:
        found = await answer
    finally:
        timer.cancel()
    if late:
        raise TimeoutError
    return found
