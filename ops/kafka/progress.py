"""Health is progress: how far a Faust role is behind, how old its oldest record in hand is, whether it moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import Gauge

from ops.telemetry import logger

LAG = Gauge("kifiya_lag_records", "Records that the role has not finished.", ["topic"])
LAG_AGE = Gauge("kifiya_lag_age_seconds", "Age of the oldest record in hand; 0 when none is.", ["topic"])
DRAIN = Gauge("kifiya_drain_seconds", "Time to finish the backlog at the rate measured; NaN while it does not move.")
STALLED = Gauge("kifiya_stalled", "1 while there is a backlog and no offset has moved for too long.")

EVERY_S: Final = 5.0
STALLED_AFTER_S: Final = 120.0
MEMORY: Final = 0.8
"""How much of the rate measured before counts against the newest reading."""


@dataclass(slots=True)
class Progress:
    """Readings of one role over time. Pure; ``clock`` is monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    stalled_after_s: float = STALLED_AFTER_S
    lag: dict[str, int] = field(default_factory=dict)
    rate: float = 0.0
    _done: int | None = None
    _read_at: float = 0.0
    _moved_at: float = 0.0

    def read(self, lag: dict[str, int], done: int) -> None:
        """One reading: records left by topic, and the sum of all committed offsets."""
        now = self.clock()
        if self._done is None or done < self._done:  # the first reading, or partitions went elsewhere
            self._moved_at = now
        else:
            if done > self._done or not sum(lag.values()):
                self._moved_at = now
            newest = (done - self._done) / max(now - self._read_at, 1e-6)
            self.rate = newest if self.rate == 0 else MEMORY * self.rate + (1 - MEMORY) * newest
        self._done, self._read_at, self.lag = done, now, dict(lag)

    @property
    def stalled(self) -> bool:
        """Whether there is a backlog and nothing was finished for too long."""
        return bool(sum(self.lag.values())) and self._read_at - self._moved_at > self.stalled_after_s

    @property
    def drain_s(self) -> float:
        """Seconds until the backlog is done at the rate measured; NaN while nothing moves."""
        left = sum(self.lag.values())
        return 0.0 if not left else left / self.rate if self.rate > 0 else float("nan")


async def watch(app: Any, progress: Progress, names: frozenset[str]) -> None:
    """Read the app's consumer every few seconds, into ``progress`` and the metrics; never returns."""
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            lag, age_s, done = app.consumer.standing(names)
        except Exception as error:  # noqa: BLE001 - a rebalance is under way; the next reading will do
            logger().debug("no reading", action="progress-unread", error=type(error).__name__)
            continue
        progress.read(lag, done)
        for name in names:
            LAG.labels(name).set(lag.get(name, 0))
            LAG_AGE.labels(name).set(age_s.get(name, 0.0))
        DRAIN.set(progress.drain_s)
        STALLED.set(progress.stalled)
