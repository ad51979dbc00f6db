"""Circuit breaker of a lane, local to its worker: holds calls back while the provider is ill. Pure; the clock is passed in.

Opens at half failures among the last 20 calls, at least 10; after 5 s one probe at a time decides. (M. Nygard, Release It!)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

LAST: Final = 20
AT_LEAST: Final = 10
FAILURE_SHARE: Final = 0.5
OPEN_S: Final = 5.0
PROBE_S: Final = 15.0


class Breaker:
    """Closed, open, or half-open with one probe. Burns nothing while open: callers wait and ask again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._calls: deque[bool] = deque(maxlen=LAST)
        self._opened_at: float | None = None
        self._probe_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls are held back, a probe at most excepted."""
        return self._opened_at is not None

    def wait_s(self) -> float:
        """Seconds to wait before asking again; 0 is the permission to call, and in half-open claims the one probe.

        A claimed probe that is never recorded (its payment was cancelled, say) is free again after 15 s.
        """
        if self._opened_at is None:
            return 0.0
        now = self._clock()
        if now < self._opened_at + OPEN_S:
            return self._opened_at + OPEN_S - now
        if self._probe_until is not None and now < self._probe_until:
            return min(1.0, self._probe_until - now)
        self._probe_until = now + PROBE_S
        return 0.0

    def record(self, ok: bool) -> None:  # noqa: FBT001 - one fact, one argument
        """A call has ended; ``ok`` is any healthy answer, a decline included."""
        if self._opened_at is not None:
            if self._probe_until is None:
                return  # a call that began before the breaker opened
            self._probe_until = None
            self._calls.clear()
            self._opened_at = None if ok else self._clock()
            return
        self._calls.append(ok)
        failures = self._calls.count(False)
        if len(self._calls) >= AT_LEAST and failures >= FAILURE_SHARE * len(self._calls):
            self._opened_at = self._clock()
            self._probe_until = None
