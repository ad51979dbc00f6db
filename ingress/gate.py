"""How many requests work at a time: a burst waits in line instead of making every request late."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final

from prometheus_client import Counter

from ingress.problem import Problem

SHED: Final = Counter("kifiya_ingress_shed", "Requests refused because too many were in hand.")
WORKING: Final = 256
"""At 0.7 ms of work each they are done in a fifth of a second; more would run into one another's time-outs."""
WAIT_S: Final = 0.5


class Gate:
    """At most ``working`` requests work at a time; others wait their turn, ``limit`` all together.

    Those whose body has yet to come stand outside: they cost little, and slow senders could fill any limit.
    """

    def __init__(self, limit: int, *, working: int = WORKING, wait_s: float = WAIT_S) -> None:
        self._limit = limit
        self._free = working
        self._working = working
        self._wait_s = wait_s
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        """How many more may work at once."""
        return self._free

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def check(self) -> None:
        """Raises Problem 503 where a request that comes now would be refused: before it costs anything."""
        if not self._free and self._working + len(self._line) >= self._limit:
            SHED.inc()
            raise Problem(503, "overloaded", "too many requests in hand; nothing was accepted", retry_after_s=1)

    def enter(self) -> Inside:
        """``async with`` it. Raises Problem 503: at once where too many wait, or when no turn came in ``wait_s``."""
        return Inside(self)

    async def begin(self) -> None:
        """Raises Problem 503."""
        if self._free:
            self._free -= 1
        else:
            await self._turn()

    async def _turn(self) -> None:
        self.check()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await asyncio.wait({turn}, timeout=self._wait_s)
        except asyncio.CancelledError:
            self._leave(turn)
            raise
        if not turn.done():
            self._leave(turn)
            SHED.inc()
            raise Problem(503, "overloaded", "no turn came in time; nothing was accepted", retry_after_s=1)

    def _leave(self, turn: asyncio.Future[None]) -> None:
        if turn.done():  # the turn came in the same moment: pass it on
            self.end()
        else:
            self._line.remove(turn)

    def end(self) -> None:
        """One has done its work: the next in line begins."""
        if self._line:
            self._line.popleft().set_result(None)
        else:
            self._free += 1


class Inside:
    """One request's way through the gate."""

    __slots__ = ("_gate",)

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __aenter__(self) -> None:
        await self._gate.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.end()
