"""An event loop in virtual time whose processes can be stopped and killed at any of their steps.

Time passes only while nobody has anything to do, and then at once. A process is a context: what it schedules is known
to be its own, is held while it is stopped (SIGSTOP), and is never run again once it is dead (SIGKILL): no ``finally``
of it, no ``except``, just as in the real world.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
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

    def writes(self) -> None:
        """It writes something to the outside world."""
        self.writes_left -= 1
        if self.writes_left == 0:
            self.doom()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run this as the process."""
        context = copy_context()
        context.run(_RUNNING.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)


_RUNNING: Final[ContextVar[Process | None]] = ContextVar("process", default=None)


def current() -> Process | None:
    """The process that runs; None for the world around them."""
    return _RUNNING.get()


class Deadlock(Exception):
    """Nobody will ever have anything to do again, and the work is not done."""


class _Handle(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        if _may_run(self):
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    __slots__ = ()

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        return self._when < other._when  # type: ignore[attr-defined,no-any-return]

    def _run(self) -> None:
        if _may_run(self):
            super()._run()


def _may_run(handle: Any) -> bool:
    process = handle._context.get(_RUNNING)  # noqa: SLF001 - asyncio knows no processes
    loop = handle._loop  # noqa: SLF001
    if process is None or loop.over:
        return True
    if process.dead:
        loop.dropped.append(handle)
        return False
    if process.stopped_until > loop.time():
        loop.call_world(process.stopped_until, lambda: None if handle.cancelled() else handle._run())  # noqa: SLF001
        return False
    return True


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
            self._ready.extend(self.dropped)  # type: ignore[attr-defined]
            self.dropped.clear()
            self.run_until_complete(asyncio.wait(self._tasks))
            self._tasks.clear()
            self._ready.clear()  # type: ignore[attr-defined]
            self._scheduled.clear()  # type: ignore[attr-defined]
            _living.remove(self)

    def _run_once(self) -> None:
        """One round, as asyncio's own, but time passes instead of being waited for. Raises Deadlock.

        Cancelled timers stay until they are due: to sweep them is no faster, and a heap built anew orders equal moments
        otherwise, so that a seed's life would hang on when it was swept.
        """
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready:
            while scheduled and scheduled[0]._cancelled:  # noqa: SLF001 - as asyncio does
                heapq.heappop(scheduled)
            if not scheduled:
                raise Deadlock
            self.now = max(self.now, scheduled[0]._when)  # noqa: SLF001 - as asyncio does
        while scheduled and scheduled[0]._when <= self.now:  # noqa: SLF001 - as asyncio does
            ready.append(heapq.heappop(scheduled))
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:  # noqa: SLF001 - as asyncio does
                handle._run()  # noqa: SLF001 - as asyncio does

    def _remembered(self, loop: Any, work: Any, **more: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
        if not self.over:
            self._tasks.append(task)
        return task

    def time(self) -> float:
        """Virtual seconds."""
        return self.now

    def _call_soon(self, callback: Callable[..., object], args: Any, context: Context | None) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, for the process that calls."""
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]  # noqa: SLF001 - as asyncio does
        return timer

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
