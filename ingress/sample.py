"""A lane as it was at one moment: what the lookout has seen, and the queue reckons with."""

from __future__ import annotations

from dataclasses import dataclass

from ingress.retries import Tier


@dataclass(frozen=True, slots=True)
class Line:
    """One topic of tasks, by partition: its ends, the first records that are not served yet.

    ``oldest_ms`` is when the payment at each head was accepted, None if unknown.
    """

    ends: tuple[int, ...]
    heads: tuple[int, ...]
    oldest_ms: tuple[int | None, ...] = ()

    @property
    def backlog(self) -> int:
        """How many wait in it."""
        return sum(max(0, end - head) for end, head in zip(self.ends, self.heads, strict=True))


@dataclass(frozen=True, slots=True)
class Sample:
    """A lane at one moment, ``at`` in monotonic seconds.

    ``due`` are the retries that are due, ``tiers`` those that are not yet; ``arriving`` is what intake has in hand for
    the lane; ``paused`` says why nothing is called now, None where it is.
    """

    at: float
    wall_ms: int
    lines: tuple[Line, ...]
    due: Line = Line((), ())
    tiers: tuple[Tier, ...] = ()
    arriving: float = 0.0
    paused: str | None = None
