"""Time-outs that share one timer: ``asyncio.timeout`` sets one for each wait and takes nearly all of them back."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self
from weakref import WeakKeyDictionary

EVERY_S: Final = 0.05
"""How often it is looked who is late: by so much more a wait may last."""


class _Watch:
    """Those who wait within bounds on one loop; no timer while there are none."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = loop.time
        self.waiting: dict[within, None] = {}
        self._later = loop.call_later
        self._set = False

    def begin(self) -> None:
        """Somebody waits."""
        if not self._set:
            self._set = True
            self._later(EVERY_S, self._look)

    def _look(self) -> None:
        now = self.time()
        for late in [each for each in self.waiting if each.end <= now]:
            del self.waiting[late]
            late.expire()
        self._set = False
        if self.waiting:
            self.begin()


_WATCHES: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch]] = WeakKeyDictionary()


class within:  # noqa: N801 - reads like asyncio.timeout, and does what it does
    """``with within(seconds): await ...``; raises TimeoutError at most ``EVERY_S`` after they are over.

    Like ``asyncio.timeout`` it cancels the task that waits, and tells that from any other cancellation.
    """

    __slots__ = ("_before", "_seconds", "_task", "_watch", "end", "expired")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.expired = False

    def __enter__(self) -> Self:
        """Begin. Raises RuntimeError outside of a task."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can wait")
        loop = task.get_loop()
        watch = _WATCHES.get(loop)
        if watch is None:
            watch = _WATCHES[loop] = _Watch(loop)
        self._task, self._watch, self._before = task, watch, task.cancelling()
        self.end = watch.time() + self._seconds
        watch.waiting[self] = None
        watch.begin()
        return self

    def expire(self) -> None:
        """The time is over."""
        self.expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        if not self.expired:
            del self._watch.waiting[self]
        elif self._task.uncancel() <= self._before and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
