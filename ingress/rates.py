"""How many requests a merchant may send: a sliding window, decided in the process and told to the others behind it.

The storages of ``limits`` ask Redis for every request, which is a second round trip in the hot path, or share nothing.
So the notation is theirs, and the counting is here: what this process has allowed since is added to the count of all
processes every ``SYNC_S``, in the round trips that claims make anyway. A limit is overrun by no more than the others
allow in that time; with Redis away each process keeps to it alone. What is refused is not counted, so whoever goes on
asking gets the limit and not nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, Protocol

from prometheus_client import Counter

from ingress.presence import Away
from ingress.problem import Problem
from ingress.tenants import Caller
from ops.telemetry import logger
from schemas import rate_limit

LIMITED: Final = Counter("kifiya_ingress_limited", "Requests, and lines of batches, over their merchant's rate limit.")

SYNC_S: Final = 0.1
MOST: Final = 10_000
"""Merchants whose counts are kept at least; beyond them those of past windows are dropped."""

Header = tuple[bytes, bytes]


class Shared(Protocol):
    """The count of all processes."""

    async def spend(self, merchant_id: str, window: tuple[int, int], count: int) -> tuple[int, int]:
        """Add to a window, (seconds, number); its count then, and the window before's. Raises Away."""


class Window:
    """Requests of one span of time: ``shared`` as Redis last said, beyond it ours: ``sending`` and ``unsent``."""

    __slots__ = ("number", "sending", "shared", "unsent")

    def __init__(self, number: int) -> None:
        self.number = number
        self.shared = self.sending = self.unsent = 0

    @property
    def count(self) -> int:
        """Requests, as far as they are known here."""
        return self.shared + self.sending + self.unsent


class Allowance:
    """One merchant's windows. Their numbers are the same in all processes: they count from the epoch."""

    __slots__ = ("amount", "before", "now", "policy", "seconds", "text")

    def __init__(self, text: str) -> None:
        item = rate_limit.parse(text)
        self.text = text
        self.amount, self.seconds = item.amount, item.get_expiry()
        self.policy: Header = (b"ratelimit-policy", b'"merchant";q=%d;w=%d' % (self.amount, self.seconds))
        self.before, self.now = Window(-1), Window(0)

    def take(self, at: float) -> int:
        """How many more may come after this one; negative: this one is over the limit, and was not counted."""
        number = int(at // self.seconds)
        if number != self.now.number:
            self.before = self.now if number == self.now.number + 1 else Window(number - 1)
            self.now = Window(number)
        before = self.before.count * (1 - (at % self.seconds) / self.seconds)
        left = math.floor(self.amount - before - self.now.count - 1)
        if left >= 0:
            self.now.unsent += 1
        return left

    def wait_s(self, at: float) -> float:
        """From when on one more is within the limit, if nothing else comes."""
        gone_s = at % self.seconds
        room = self.amount - 1 - self.now.count
        if room >= 0:
            share = min(1.0, room / max(1, self.before.count))
            return max(0.0, self.seconds * (1 - share) - gone_s)
        share = (self.amount - 1) / self.now.count
        return self.seconds - gone_s + self.seconds * (1 - share)


class Rates:
    """All merchants' allowances; ``default`` is for those that have no limit of their own, ``clock`` is the wall's."""

    def __init__(self, shared: Shared, default: str, *, clock: Callable[[], float] = time.time) -> None:
        self._shared = shared
        self._default = default
        self._clock = clock
        self._of: dict[str, Allowance] = {}
        self._asked: set[str] = set()
        self._syncing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Tell the others no more."""
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.wait({self._syncing})
            self._syncing = None

    def take(self, who: Caller) -> list[Header]:
        """Count one request of this caller; the headers that say what is left. Raises Problem 429."""
        found = self._of.get(who.merchant_id)
        if found is None or found.text != (who.rate_limit or self._default):
            found = self._of[who.merchant_id] = self._new(who)
        self._asked.add(who.merchant_id)
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._later())
        at = self._clock()
        left = found.take(at)
        if left < 0:
            LIMITED.inc()
            raise over(found, at)
        reset_s = math.ceil(found.seconds - at % found.seconds)
        return [found.policy, (b"ratelimit", b'"merchant";r=%d;t=%d' % (left, reset_s))]

    async def sync(self) -> None:
        """Tell the others what was allowed here, and hear what they allowed."""
        asked, self._asked = self._asked, set()
        if len(self._of) > MOST:
            at = self._clock()
            self._of = {name: kept for name, kept in self._of.items() if at // kept.seconds - kept.now.number <= 1}
        found = [(name, self._of[name]) for name in asked if name in self._of]
        await asyncio.gather(*(self._tell(name, each) for name, each in found))

    async def _later(self) -> None:
        try:
            await asyncio.sleep(SYNC_S)
            await self.sync()
        finally:
            self._syncing = None

    async def _tell(self, merchant_id: str, found: Allowance) -> None:
        before, now = found.before, found.now
        if before.unsent:
            await self._add(merchant_id, found.seconds, before)
        total = await self._add(merchant_id, found.seconds, now)
        before.shared = max(before.shared, total)

    async def _add(self, merchant_id: str, seconds: int, window: Window) -> int:
        """Add what is ours; the count of the window before. An Away may have added it, too: then it counts twice."""
        window.sending, window.unsent = window.unsent, 0
        try:
            window.shared, before = await self._shared.spend(merchant_id, (seconds, window.number), window.sending)
        except Away:
            window.unsent += window.sending
            before = 0
        finally:
            window.sending = 0
        return before

    def _new(self, who: Caller) -> Allowance:
        try:
            return Allowance(who.rate_limit or self._default)
        except ValueError as error:  # written by hand, past `kifiya merchants`
            logger().error("a merchant's rate limit is none", action="bad-rate-limit", detail=str(error))
            found = Allowance(self._default)
            found.text = who.rate_limit or ""
            return found


def over(found: Allowance, at: float) -> Problem:
    """How a request over the limit is answered."""
    wait_s = max(1, math.ceil(found.wait_s(at)))
    return Problem(
        429, "rate-limited", f"a merchant may send {found.amount} requests in {found.seconds} s; nothing was accepted",
        retry_after_s=wait_s,
        headers={"RateLimit-Policy": found.policy[1].decode(), "RateLimit": f'"merchant";r=0;t={wait_s}'},
    )  # fmt: skip
