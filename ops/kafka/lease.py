"""Whether this process surely is a member of its consumer group still, by its own monotonic clock. Pure.

A worker that was stopped (SIGSTOP, a paused machine) past its session's end wakes up with work in hand that is
another's by now, and hears of it only with its next heartbeat. The lease tells it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Lease:
    """The coordinator keeps a member for ``session_s`` from when it last heard of it, so from when that was sent."""

    session_s: float
    clock: Callable[[], float]
    until: float = float("-inf")

    def renewed(self, asked_at: float) -> None:
        """The coordinator has answered a request that was sent at this moment of ``clock``."""
        self.until = max(self.until, asked_at + self.session_s)

    def holds(self) -> bool:
        """Whether nobody else can own our partitions yet."""
        return self.clock() < self.until
