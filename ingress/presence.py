"""Whether a dependency is there: once it failed nobody waits for it, until it has been looked for and found again."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from prometheus_client import Counter, Gauge

from ops.telemetry import logger

AWAY: Final = Counter("kifiya_ingress_away", "Calls that a dependency did not answer, or was not asked.", ["name"])
PRESENT: Final = Gauge("kifiya_ingress_present", "1 while a dependency answers.", ["name"])
_SAY_EVERY_S: Final = 20.0


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
        PRESENT.labels(name).set(1)  # until it fails: the metrics are there before the first call
        AWAY.labels(name).inc(0)

    def check(self) -> None:
        """Raises Away, at once, while it is known to be away."""
        if (refusal := self.refusal()) is not None:
            raise refusal

    def refusal(self) -> Away | None:
        """What ``check`` raises."""
        if not self.away:
            return None
        AWAY.labels(self.name).inc()
        return Away(f"{self.name} is away")

    def begin(self) -> None:
        """Away until it was found for the first time; looks at once."""
        if not self.away:
            self.away = True
            PRESENT.labels(self.name).set(0)
            self._looking = asyncio.create_task(self._find(0.0, said_at=-math.inf))

    def lost(self, error: BaseException) -> None:
        """It failed: spare everyone the wait from now on."""
        AWAY.labels(self.name).inc()
        if not self.away:
            self.away = True
            PRESENT.labels(self.name).set(0)
            logger().warning("a dependency is away", action=f"{self.name}-away", error=_kind(error))
            self._looking = asyncio.create_task(self._find(self._rest_s, said_at=time.monotonic()))

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    async def _find(self, rest_s: float, *, said_at: float) -> None:
        while self.away:
            await asyncio.sleep(rest_s)
            rest_s = self._rest_s
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._look()
            except Exception as error:  # noqa: BLE001 - whatever it is, the dependency is not there
                if time.monotonic() - said_at >= _SAY_EVERY_S:
                    said_at = time.monotonic()
                    logger().warning("a dependency is away", action=f"{self.name}-away", error=_kind(error))
                continue
            self.away = False
            PRESENT.labels(self.name).set(1)
            logger().info("a dependency is there", action=f"{self.name}-there")


def _kind(error: BaseException) -> str:
    """The error's class and its cause's; messages may hold addresses with passwords."""
    cause = error.__cause__
    return type(error).__name__ if cause is None else f"{type(error).__name__} ({type(cause).__name__})"
