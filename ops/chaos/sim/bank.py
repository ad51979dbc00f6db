"""A provider in small: its books, its log of arrivals, its moods; and the adapter that calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, Self

from ops.chaos.evidence import Arrival, Charge
from ops.chaos.sim.loop import running, sleep, within
from schemas.records import PaymentTask
from streams.providers.port import BeforeWrite, Outcome, OutcomeKind

CALL_S: Final = 2.0
LATEST_S: Final = 20.0
"""How long a request that got no answer may take to land."""

Answer = Callable[[], Outcome]


@dataclass(slots=True)
class Bank:
    """The provider. ``idempotent``: one charge a key; else every request that lands is a charge."""

    random: Random
    account: str
    idempotent: bool
    kind: bool = False
    arrivals: list[Arrival] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    landing: set[str] = field(default_factory=set)
    declines: dict[str, bool] = field(default_factory=dict)

    def arrive(self, method: str, key: str, task: PaymentTask) -> Outcome | None:
        """A request's first byte is here; the answer, or None where there will be none."""
        at_ns = round(running().now * 1e9)
        self.arrivals.append(Arrival(at_ns, self.account, method, key, task.payment_id))
        if method == "GET":
            return self._status(key)
        if self.idempotent and key in self.landing:
            return Outcome(kind=OutcomeKind.RETRYABLE, reason="key-in-use")
        return self._charge(0.0 if self.kind else self.random.random(), key, task)

    def _charge(self, mood: float, key: str, task: PaymentTask) -> Outcome | None:
        if mood < 0.55:
            return self._book(key, task)
        if mood < 0.65:
            return Outcome(kind=OutcomeKind.RETRYABLE, reason="unavailable")
        if mood < 0.75:  # charged, and nobody hears of it
            self._book(key, task)
            return None
        if mood < 0.85:  # lost on its way in
            return None
        if mood < 0.93:  # 500, charged or not
            if self.random.random() < 0.5:
                self._book(key, task)
            return Outcome(kind=OutcomeKind.UNKNOWN, reason="status-500")
        self.landing.add(key)
        running().call_world(running().now + self.random.uniform(0.5, LATEST_S), lambda: self._land(key, task))
        return None

    def _land(self, key: str, task: PaymentTask) -> None:
        self.landing.discard(key)
        self._book(key, task)

    def _book(self, key: str, task: PaymentTask) -> Outcome:
        known = next((charge for charge in self.charges if charge.key == key), None)
        if known is None or not (self.idempotent or not known.approved):
            declined = self.declines.setdefault(task.payment_id, self.random.random() < 0.15)
            known = Charge(task.payment_id, key, not declined, task.amount_minor, task.currency)
            self.charges.append(known)
        return _told(known)

    def _status(self, key: str) -> Outcome:
        if not self.kind and self.random.random() < 0.1:
            return Outcome(kind=OutcomeKind.RETRYABLE, reason="unavailable")
        known = next((charge for charge in self.charges if charge.key == key), None)
        return Outcome(kind=OutcomeKind.ABSENT) if known is None else _told(known)


def _told(charge: Charge) -> Outcome:
    return Outcome(kind=OutcomeKind.APPROVED if charge.approved else OutcomeKind.DECLINED)


class Adapter:
    """Calls the bank; requests arrive within ``jitter_s`` of when they are written."""

    def __init__(self, bank: Bank, jitter_s: float) -> None:
        self._bank = bank
        self._jitter_s = jitter_s
        self.key_lifetime_s = 86_400.0 if bank.idempotent else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    async def charge(self, task: PaymentTask, *, idempotency_key: str, before_write: BeforeWrite) -> Outcome:
        """See the port."""
        return await self._call("POST", task, idempotency_key, before_write)

    async def status(self, task: PaymentTask, *, idempotency_key: str, before_write: BeforeWrite) -> Outcome:
        """See the port."""
        return await self._call("GET", task, idempotency_key, before_write)

    async def _call(self, method: str, task: PaymentTask, key: str, before_write: BeforeWrite) -> Outcome:
        loop, random = running(), self._bank.random
        await sleep(random.uniform(0.0, 0.03))
        if not self._bank.kind and random.random() < 0.03:
            return Outcome(kind=OutcomeKind.RETRYABLE, reason="not-connected", sent=False)
        await before_write()
        answer: asyncio.Future[Outcome] = loop.create_future()

        def arrive() -> None:
            found = self._bank.arrive(method, key, task)
            if found is not None:
                loop.call_world(loop.now + random.uniform(0.005, 0.2), lambda: tell(found))

        def tell(found: Outcome) -> None:
            if not answer.done():
                answer.set_result(found)

        loop.call_world(loop.now + random.uniform(0.0, self._jitter_s), arrive)
        try:
            return await within(CALL_S, answer)
        except TimeoutError:
            return Outcome(kind=OutcomeKind.UNKNOWN, reason="timeout")
