"""Circuit breaker of a lane, local to its worker: holds calls back while the provider is ill. Pure; the clock comes in.

Opens at half failures among the last 20 calls, at least 10; after 5 s one probe at a time decides (Release It!).
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
    """Closed, open, or half-open with one probe. Burns nothing while open: callers wait and ask again.

    A call enters with a ticket and leaves with what came of it. Tickets are those of a period: one begins whenever the
    breaker opens or closes, or a probe is let in, so a call of an earlier period has no say any more.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._calls: deque[bool] = deque(maxlen=LAST)
        self._opened_at: float | None = None
        self._probe_until: float | None = None
        self._period = 0

    @property
    def is_open(self) -> bool:
        """Whether calls are held back, a probe at most excepted."""
        return self._opened_at is not None

    def wait_s(self) -> float:
        """Seconds to wait before asking again; 0: a call may enter now.

        A probe that tells nothing (its worker hangs, say) makes room for another after 15 s.
        """
        if self._opened_at is None:
            return 0.0
        now = self._clock()
        if now < self._opened_at + OPEN_S:
            return self._opened_at + OPEN_S - now
        return 0.0 if self._probe_until is None else max(0.0, self._probe_until - now)

    def enter(self) -> int:
        """A call's ticket, to be asked for when :meth:`wait_s` is 0. Half-open, it is the probe's."""
        if self._opened_at is not None:
            self._period += 1
            self._probe_until = self._clock() + PROBE_S
        return self._period

    def admits(self, ticket: int) -> bool:
        """Whether the call with this ticket may still be made."""
        return ticket == self._period

    def leave(self, ticket: int, *, ok: bool | None) -> None:
        """The call is over. ``ok`` is any healthy answer, a decline included; None: nothing was sent."""
        if ticket != self._period:
            return
        if self._opened_at is not None:
            self._probe_until = None
            if ok is not None:
                self._turn(open_=not ok)
        elif ok is not None:
            self._calls.append(ok)
            failures = self._calls.count(False)
            if len(self._calls) >= AT_LEAST and failures >= FAILURE_SHARE * len(self._calls):
                self._turn(open_=True)

    def _turn(self, *, open_: bool) -> None:
        self._period += 1
        self._calls.clear()
        self._opened_at = self._clock() if open_ else None
        self._probe_until = None
