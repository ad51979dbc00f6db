"""The simulated provider itself: its charges, its limit, its log. No I/O; the clock is passed in (nanoseconds)."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

MAX_LOG: Final = 1_000_000


@dataclass(slots=True)
class Observed:
    """One request as the provider saw it; ``arrived_ns`` is its own monotonic clock when the first byte came."""

    arrived_ns: int
    method: str
    path: str
    key: str | None
    body_sha256: str
    reference: str | None = None
    amount_minor: int | None = None
    status: int = 0
    traceparent: str | None = None


@dataclass(slots=True)
class Charge:
    """One charge in the provider's books."""

    id: str
    status: str
    reason: str | None
    reference: str
    amount_minor: int
    currency: str
    merchant_id: str
    key: str


@dataclass(slots=True)
class Provider:
    """Charges are idempotent by key: the same key and body give the same charge, another body is refused.

    ``keyless``: it knows no keys, each request charges anew, and charges are found by their reference.
    """

    limit: int
    window_ns: int
    clock: Callable[[], int]
    keyless: bool = False
    log: list[Observed] = field(default_factory=list)
    dropped: int = 0
    charges: dict[str, Charge] = field(default_factory=dict)
    repeated: list[Charge] = field(default_factory=list)
    """Where there are no keys: charges beyond the first one of a reference."""
    bodies: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    in_use: set[str] = field(default_factory=set)
    _window: list[int] = field(default_factory=list)
    """The last arrivals, in order."""

    def observe(self, seen: Observed) -> None:
        """Write a request into the log; beyond a million the log only counts, loudly in ``dropped``."""
        if len(self.log) < MAX_LOG:
            self.log.append(seen)
        else:
            self.dropped += 1

    def over_limit(self, arrived_ns: int) -> float | None:
        """Seconds until a request would be within the limit, None if this one is. Refused requests count, too."""
        window = self._window
        # Another one that came before this one may still be read: what counts for that is kept, too.
        del window[: bisect_right(window, arrived_ns - 2 * self.window_ns)]
        place = bisect_right(window, arrived_ns)
        over = place - bisect_right(window, arrived_ns - self.window_ns) >= self.limit
        first = window[place - self.limit] if over else 0
        window.insert(place, arrived_ns)
        return max(0.001, (first + self.window_ns - arrived_ns) / 1e9) if over else None

    def book(self, key: str, fields: dict[str, Any], *, status: str, reason: str | None = None) -> Charge:
        """Charge (or decline) once per key, or each time where there are none."""
        found = self.charges.get(key)
        if found is None or self.keyless:
            again = f"{key}#{len(self.repeated) + 1}" if found else key
            charge = Charge(
                id="ch_" + hashlib.sha256(again.encode()).hexdigest()[:24],
                status=status,
                reason=reason,
                reference=fields["reference"],
                amount_minor=fields["amount_minor"],
                currency=fields["currency"],
                merchant_id=fields["merchant_id"],
                key=key,
            )
            if found is not None:
                self.repeated.append(charge)
            else:
                self.charges[key] = charge
            return charge
        return found

    def dump(self) -> dict[str, Any]:
        """All that was seen and all that was charged."""
        return {
            "limit": self.limit,
            "window_ns": self.window_ns,
            "requests": [asdict(seen) for seen in self.log],
            "dropped": self.dropped,
            "charges": [asdict(charge) for charge in (*self.charges.values(), *self.repeated)],
        }
