"""The sliding log: the rule behind every adapter of the limiter, pure. ``acquire.lua`` is the same in Lua.

At most ``limit`` slots start in any window; the window is the provider's plus the guard. All times are microseconds.
A slot is reserved at most one window ahead: a longer queue of reservations would outlive a loss of the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Granted:
    """A slot, reserved."""

    slot_us: int


@dataclass(frozen=True, slots=True)
class AskAgain:
    """No slot within one window; ask again after ``wait_us``."""

    wait_us: int


@dataclass(slots=True)
class SlidingLog:
    """The last ``limit`` slots, oldest first. ``slots`` is None where the log was lost."""

    limit: int
    window_us: int
    slots: list[int] | None = field(default=None)

    def reserve(self, now_us: int, lead_us: int = 0) -> Granted | AskAgain:
        """Reserve the next slot, ``lead_us`` from now at the earliest.

        A lost log is taken as full up to one window ahead: whatever was granted before the loss has then passed.
        """
        if self.slots is None:
            self.slots = [now_us + self.window_us] * self.limit
        slot = max(now_us + min(lead_us, self.window_us), self.slots[0] + self.window_us)
        ahead = slot - now_us
        if ahead > self.window_us:
            return AskAgain(ahead - self.window_us)
        self.slots = [*self.slots[1:], slot]
        return Granted(slot)
