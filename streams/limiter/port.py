"""Port of the limiter: the right to call a provider now, strict on the provider's clock."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from streams.errors import PermitExpired


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to write one request between two moments of ``time.monotonic()`` (seconds).

    ``slot_us`` is the slot's start on the store's clock, epoch microseconds. Inside the two moments the store's clock
    is surely within half the guard of the slot, so calls stay apart as the slots do, network jitter and what that
    clock moved unseen (see ``clock.Steadiness``) up to the other half.
    """

    opens_at: float
    closes_at: float
    slot_us: int

    def check(self, now: float) -> None:
        """Return while the permit may be used. Raises PermitExpired after it, ValueError before it opens."""
        if now > self.closes_at:
            raise PermitExpired(f"{(now - self.closes_at) * 1000:.1f} ms late")
        if now < self.opens_at:
            raise ValueError("the permit is not open yet")


class Limiter(Protocol):
    """Grants permits of one lane, over all its workers. An async context manager."""

    async def acquire(self, lead_s: float = 0.0) -> Permit:
        """Wait for a permit that opens ``lead_s`` from now at the earliest, one window ahead at the latest.

        Raises LimiterUnavailable within 2 s where the store does not answer.
        """
        ...

    async def __aenter__(self) -> Self:
        """Open; connects nothing yet."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...
