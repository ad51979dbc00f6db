"""One coroutine at a time for a payment: its topics are isolated each on their own, so a lane has a lock for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Locks:
    """One lock per payment in hand; forgotten when nobody holds or awaits it."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[asyncio.Lock, int]] = {}

    def busy(self, payment_id: str) -> bool:
        """Whether somebody holds or awaits the payment's lock."""
        return payment_id in self._held

    @asynccontextmanager
    async def of(self, payment_id: str) -> AsyncIterator[None]:
        """Hold the payment's lock."""
        lock, users = self._held.get(payment_id, (asyncio.Lock(), 0))
        self._held[payment_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._held[payment_id]
            if users == 1:
                del self._held[payment_id]
            else:
                self._held[payment_id] = (lock, users - 1)
