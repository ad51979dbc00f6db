"""The ledger: a lane's memory of every payment it has touched, in a changelog-backed Faust table.

``write`` is durable when it returns: changelog first, acked by the broker, then the local store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Protocol

from streams.payment import Entry, decode, encode

Append = Callable[[int, bytes, bytes | None], Awaitable[None]]
"""Append (partition, key, value) to the changelog; returns when the broker has acked it."""


class Ledger(Protocol):
    """Port: one entry per payment."""

    def read(self, payment_id: str) -> Entry | None:
        """The payment's entry; None where the lane never touched it."""
        ...

    async def write(self, partition: int, payment_id: str, entry: Entry) -> None:
        """Make an entry durable on the partition of its payment."""
        ...


class TableLedger:
    """Ledger over raw bytes: a Faust table's local data and its changelog, or a plain dict in tests."""

    def __init__(self, data: MutableMapping[bytes, bytes], append: Append) -> None:
        self._data = data
        self._append = append

    def read(self, payment_id: str) -> Entry | None:
        """The payment's entry; None where the lane never touched it."""
        value = self._data.get(payment_id.encode())
        return decode(value) if value else None

    async def write(self, partition: int, payment_id: str, entry: Entry) -> None:
        """Changelog, ack, local store; in this order."""
        key, value = payment_id.encode(), encode(entry)
        await self._append(partition, key, value)
        self._data[key] = value
