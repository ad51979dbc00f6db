"""Time-outs that share one timer: ``asyncio.timeout`` sets one for each wait and takes nearly all of them back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Final, Self
from weakref import WeakKeyDictionary

EVERY_S: Final = 0.05
"""How often it is looked who is late: by so much more a wait may last."""
LAG_S: Final = 0.02
"""A loop that comes back to its timer later than this lags: what it waits for may be there all the same."""


class _Watch:
    """Those who wait within bounds on one loop; no timer while there are none. It holds no loop: those end, too."""

    def __init__(self) -> None:
        self.waiting: dict[within, None] = {}
        self._set = False
        self._due = 0.0

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Somebody waits."""
        if not self._set:
            self._set = True
            self._due = loop.time() + EVERY_S
            loop.call_later(EVERY_S, self._tick)

    def _tick(self) -> None:
        self._set = False
        if self.waiting:
            self.look()
        if self.waiting:
            self.begin(asyncio.get_running_loop())

    def look(self) -> None:
        """End those whose time is over, of one task's the first: the others may be ended by that."""
        now = asyncio.get_running_loop().time()
        if (lag_s := now - self._due) > LAG_S:
            self._due = now
            for each in self.waiting:
                each.forgive(lag_s, now)
        late = sorted((each for each in self.waiting if each.end <= now), key=lambda each: each.end)
        for each in {each.task: each for each in reversed(late)}.values():
            del self.waiting[each]
            with suppress(Exception):  # a future's own cancel may raise; the others' time is over all the same
                each.expire()


_WATCHES: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch]] = WeakKeyDictionary()


class within:  # noqa: N801 - reads like asyncio.timeout, and does what it does
    """``with within(seconds): await ...``; raises TimeoutError at most ``EVERY_S`` after they are over.

    Like ``asyncio.timeout`` it cancels the task that waits, and tells that from any other cancellation. For one use.
    ``patient``: while the loop lags it is not the other side that is late, which gets that time again, at most as much
    as it had.
    """

    __slots__ = ("_before", "_seconds", "_spare_s", "_watch", "end", "expired", "task")

    def __init__(self, seconds: float, *, patient: bool = False) -> None:
        self._seconds = seconds
        self._spare_s = seconds if patient else 0.0
        self._watch: _Watch | None = None
        self.expired = False

    def __enter__(self) -> Self:
        """Begin. Raises RuntimeError outside of a task, and where it was used before."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None or self._watch is not None:
            raise RuntimeError("only a task can wait, and each time within new bounds")
        watch = _WATCHES.get(loop)
        if watch is None:
            watch = _WATCHES[loop] = _Watch()
        self.task, self._watch, self._before = task, watch, task.cancelling()
        self.end = loop.time() + self._seconds
        watch.waiting[self] = None
        watch.begin(loop)
        if self._seconds <= 0:
            loop.call_soon(watch.look)
        return self

    def forgive(self, lag_s: float, now: float) -> None:
        """The loop has lagged for so long until now: what came meanwhile could not be read before."""
        more_s = min(lag_s, self._spare_s)
        if more_s > 0:
            self._spare_s -= more_s
            self.end = max(self.end, now) + more_s

    def expire(self) -> None:
        """The time is over."""
        self.expired = True
        self.task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        if not self.expired:
            if self._watch is not None:
                self._watch.waiting.pop(self, None)
        elif self.task.uncancel() <= self._before and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
