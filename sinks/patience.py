"""Patience: a batch waits while PostgreSQL is away, and one batch asks for all whether it is back.

What waits is not acked, so nothing is lost when patience ends and the process with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from prometheus_client import Gauge

from ops.telemetry import logger
from sinks.postgres import Away
from sinks.rows import Batch

UP: Final = Gauge("kifiya_sink_postgres_up", "1 while PostgreSQL answers, as of the last try.")

PATIENCE_S: Final = 120.0
"""How long one batch is tried before the process ends, to be started anew."""
FIRST_S: Final = 0.1
LONGEST_S: Final = 1.0
"""Pause between two tries: the first one, then twice the one before, up to the longest."""
LOOK_S: Final = 5.0
"""How often PostgreSQL is looked for while nothing is written, so that readiness says what is true."""


class Writes(Protocol):
    """What is waited for. Both raise Away; ``write`` raises Refused too."""

    async def write(self, batch: Batch) -> dict[str, int]:
        """Write a batch; rows changed by table."""

    async def ping(self) -> None:
        """Whether it is there."""


class Patience:
    """Writes a batch however often it takes, for ``PATIENCE_S`` at most. ``reachable`` is what the last try found."""

    def __init__(
        self,
        database: Writes,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sleep = sleep
        self._line = asyncio.Lock()
        self._away_since: float | None = None
        self.reachable = False

    async def write(self, batch: Batch) -> dict[str, int]:
        """Write a batch; rows changed by table. Raises Refused, and Away once the patience is at its end."""
        since = self._clock()
        if self.reachable:
            try:
                return await self._try(batch)
            except Away:
                pass
        async with self._line:
            pause_s = FIRST_S
            while True:
                try:
                    return await self._try(batch)
                except Away:
                    if self._clock() - since >= PATIENCE_S:
                        raise
                await self._sleep(pause_s)
                pause_s = min(LONGEST_S, 2 * pause_s)

    async def look(self) -> None:
        """Ask whether PostgreSQL is there; ``reachable`` says it afterwards."""
        try:
            await self._database.ping()
        except Away as error:
            self._note(error)
        else:
            self._note(None)

    async def watch(self) -> None:
        """Look now and then, for ever."""
        while True:
            await self.look()
            await self._sleep(LOOK_S if self.reachable else LONGEST_S)

    async def _try(self, batch: Batch) -> dict[str, int]:
        try:
            changed = await self._database.write(batch)
        except Away as error:
            self._note(error)
            raise
        self._note(None)
        return changed

    def _note(self, error: Away | None) -> None:
        self.reachable = error is None
        UP.set(self.reachable)
        now = self._clock()
        if error is not None and self._away_since is None:
            self._away_since = now
            logger().warning("PostgreSQL is away, what is read waits", action="postgres-away", error=str(error))
        elif error is None and self._away_since is not None:
            waited_s, self._away_since = round(now - self._away_since, 1), None
            logger().info("PostgreSQL is back", action="postgres-back", wait_s=waited_s)
