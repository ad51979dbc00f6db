"""Whether a dependency is there: once it failed nobody waits for it, until it has been looked for and found again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from prometheus_client import Counter, Gauge

from ops.telemetry import logger

AWAY: Final = Counter("kifiya_ingress_away", "Calls that a dependency did not answer, or was not asked.", ["name"])
PRESENT: Final = Gauge("kifiya_ingress_present", "1 while a dependency answers.", ["name"])


class Away(Exception):
    """The dependency did not answer in time, or is known to be away."""


class Presence:
    """One dependency. ``look`` connects where needed and returns once it is there; it raises anything otherwise."""

    def __init__(
        self, name: str, look: Callable[[], Awaitable[None]], *, rest_s: float = 0.25, patience_s: float = 1.0
    ) -> None:
        self.name = name
        self.away = False
        self._look = look
        self._rest_s = rest_s
        self._patience_s = patience_s
        self._looking: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raises Away, at once, while it is known to be away."""
        if self.away:
            AWAY.labels(self.name).inc()
            raise Away(f"{self.name} is away")

    def begin(self) -> None:
        """Away until it was found for the first time; looks at once."""
        if not self.away:
            self.away = True
            PRESENT.labels(self.name).set(0)
            self._looking = asyncio.create_task(self._find(0.0))

    def lost(self, error: BaseException) -> None:
        """It failed: spare everyone the wait from now on."""
        AWAY.labels(self.name).inc()
        if not self.away:
            self.away = True
            PRESENT.labels(self.name).set(0)
            logger().warning("a dependency is away", action=f"{self.name}-away", error=type(error).__name__)
            self._looking = asyncio.create_task(self._find(self._rest_s))

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    async def _find(self, rest_s: float) -> None:
        while self.away:
            await asyncio.sleep(rest_s)
            rest_s = self._rest_s
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._look()
            except Exception:  # noqa: BLE001, S112 - whatever it is, the dependency is not there
                continue
            self.away = False
            PRESENT.labels(self.name).set(1)
            logger().info("a dependency is there", action=f"{self.name}-there")
