"""The ledger: a lane's memory of every payment it has touched, in a changelog-backed table.

``write`` is durable when it returns: changelog first, acked by the broker, then the local store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, Protocol

from ops.failpoints import Failpoint
from streams.errors import Overtaken
from streams.payment import Entry, decode, encode, forgettable

LOOKED_AT: Final = 500
"""Entries a sweep looks at in one go, some milliseconds' work; then the event loop has its turn."""
PAUSE_S: Final = 0.02

BEFORE_APPEND: Final = Failpoint("ledger.before-append")
AFTER_APPEND: Final = Failpoint("ledger.after-append")
AFTER_TOMBSTONES: Final = Failpoint("ledger.after-tombstones")

Gate = Callable[[], AbstractAsyncContextManager[None]]
"""Opens once this worker surely owns its partitions, and has recovered them; writes are made inside it."""


class Parts(Protocol):
    """Local data by partition, in each the oldest first."""

    def __len__(self) -> int:
        """Entries in all partitions."""
        ...

    def partitions(self) -> list[int]:
        """Partitions that hold anything."""
        ...

    def of(self, partition: int) -> dict[bytes, bytes]:
        """The data of one partition; never to be kept over an await, a rebalance may have dropped them."""
        ...

    def get(self, partition: int, key: bytes) -> bytes | None:
        """The value, or None."""
        ...

    def put(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Set a value; None deletes."""
        ...


class Store(Protocol):
    """A table: what is local, and its changelog."""

    @property
    def parts(self) -> Parts:
        """What is local."""
        ...

    async def append(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Append keys and values to the changelog; returns when all are acked. None is a tombstone."""
        ...


class Ledger(Protocol):
    """Port: one entry per payment, on the partition that is its home."""

    def read(self, partition: int, payment_id: str) -> Entry | None:
        """The payment's entry; None where the lane never touched it."""
        ...

    async def write(self, partition: int, payment_id: str, entry: Entry, *, before: Entry | None) -> None:
        """Make an entry durable that follows ``before``, by compare-and-set. Raises Overtaken if that is not last."""
        ...


class TableLedger:
    """Ledger over a table of raw bytes."""

    def __init__(self, store: Store, gate: Gate = nullcontext) -> None:
        self._store = store
        self._gate = gate

    def read(self, partition: int, payment_id: str) -> Entry | None:
        """The payment's entry; None where the lane never touched it."""
        value = self._store.parts.get(partition, payment_id.encode())
        return decode(value) if value else None

    async def write(self, partition: int, payment_id: str, entry: Entry, *, before: Entry | None) -> None:
        """Compare, changelog, ack, compare again, local store; in this order.

        A worker that was stopped, or a rebalance that came between, may have let another worker go on with the payment:
        what that one wrote is read by the recovery that the gate waits for, and must neither be overwritten nor, where
        the worker was stopped in the midst of its write, be contradicted by what it would publish next.
        """
        key, value = payment_id.encode(), encode(entry)
        async with self._gate():
            if self.read(partition, payment_id) != before:
                raise Overtaken(payment_id)
            await BEFORE_APPEND.reach()
            await self._store.append(partition, [(key, value)])
            await AFTER_APPEND.reach()
        async with self._gate():
            if self.read(partition, payment_id) not in (before, entry):
                raise Overtaken(payment_id)
            self._store.parts.put(partition, key, value)

    async def forget(self, older_than_ms: int, busy: Callable[[str], bool]) -> int:
        """Write tombstones for final entries last changed before this moment, then forget them; how many there were.

        Open payments are never forgotten. ``busy`` tells which payments are in hand: those wait for the next sweep.
        """
        count = 0
        for partition in self._store.parts.partitions():
            keys = list(self._store.parts.of(partition))
            for start in range(0, len(keys), LOOKED_AT):
                count += await self._forget(partition, keys[start : start + LOOKED_AT], older_than_ms, busy)
                await asyncio.sleep(PAUSE_S)
        return count

    async def _forget(self, partition: int, keys: list[bytes], older_than_ms: int, busy: Callable[[str], bool]) -> int:
        async with self._gate():
            part = self._store.parts.of(partition)
            old = {
                key: part[key]
                for key in keys
                if key in part and forgettable(part[key], older_than_ms) and not busy(key.decode())
            }
            if not old:
                return 0
            await self._store.append(partition, [(key, None) for key in old])
            await AFTER_TOMBSTONES.reach()
        part = self._store.parts.of(partition)
        for key, value in old.items():
            if part.get(key) == value:  # else a cancel was refused meanwhile, and its entry follows the tombstone
                del part[key]
        return len(old)
