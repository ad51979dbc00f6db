"""The last events of all merchants, shared by all who follow: a reader costs its position, never a queue.

Pure: what the tail reads comes in by ``add``, what a reader is owed comes out by ``take``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ingress import cursor

MOST: Final = 20_000
MOST_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One record; ``number`` counts what this process has read, from 1."""

    number: int
    partition: int
    offset: int
    merchant_id: str
    value: bytes
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """A record that a reader is owed. ``cursor`` is where to go on after it."""

    partition: int
    offset: int
    value: bytes
    cursor: str
    traceparent: str | None = None


@dataclass(slots=True)
class Place:
    """Where one reader of one merchant's events stands: ``offsets`` is the next of each partition."""

    merchant_id: str
    offsets: list[int]
    seen: tuple[Recent, int] | None = None
    """The recent events that it follows, and the number up to which it has seen its merchant's."""

    @property
    def cursor(self) -> str:
        """The word to go on from."""
        return cursor.encode(self.offsets)


@dataclass(slots=True, eq=False)
class _Followed:
    """Who waits for a merchant's events, and the number of the last one that is not here any more."""

    gone: int
    wakes: list[Callable[[], None]] = field(default_factory=list)


class Recent:
    """All records from ``starts`` up to ``positions``, of each partition; bounded by number and bytes."""

    def __init__(self, positions: Sequence[int], *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self.positions = list(positions)
        self.starts = list(positions)
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._number = 0
        self._entries: deque[Entry] = deque()
        self._of: dict[str, deque[Entry]] = {}
        self._followed: dict[str, _Followed] = {}

    def add(self, partition: int, offset: int, merchant_id: str, value: bytes, traceparent: str | None = None) -> None:
        """The next record of a partition has come."""
        self._number += 1
        entry = Entry(self._number, partition, offset, merchant_id, value, traceparent)
        self._entries.append(entry)
        self._bytes += len(value)
        self._of.setdefault(merchant_id, deque()).append(entry)
        self.advance(partition, offset + 1)
        while len(self._entries) > self._most or self._bytes > self._most_bytes:
            self._forget()
        followed = self._followed.get(merchant_id)
        if followed is not None:
            for wake in followed.wakes:
                wake()

    @property
    def held(self) -> tuple[int, int]:
        """How many records are here, and their bytes."""
        return len(self._entries), self._bytes

    def advance(self, partition: int, position: int) -> None:
        """All of a partition below this position has been read: what is not here is no record of anyone."""
        self.positions[partition] = max(self.positions[partition], position)

    def _forget(self) -> None:
        entry = self._entries.popleft()
        self._bytes -= len(entry.value)
        self.starts[entry.partition] = entry.offset + 1
        own = self._of[entry.merchant_id]
        own.popleft()
        if not own:
            del self._of[entry.merchant_id]
        followed = self._followed.get(entry.merchant_id)
        if followed is not None:
            followed.gone = entry.number

    def follow(self, merchant_id: str, wake: Callable[[], None]) -> None:
        """Call ``wake`` at each event of this merchant."""
        first = self._entries[0].number if self._entries else self._number + 1
        self._followed.setdefault(merchant_id, _Followed(gone=first - 1)).wakes.append(wake)

    def unfollow(self, merchant_id: str, wake: Callable[[], None]) -> None:
        """No more."""
        followed = self._followed.get(merchant_id)
        if followed is not None and wake in followed.wakes:
            followed.wakes.remove(wake)
            if not followed.wakes:
                del self._followed[merchant_id]

    def holds(self, offsets: Sequence[int]) -> bool:
        """Whether nothing from these offsets on is missing here."""
        return all(start <= offset for start, offset in zip(self.starts, offsets, strict=True))

    def take(self, place: Place, limit: int) -> list[Item] | None:
        """What this reader is owed next, at most so many; its place moves on. None: it is behind what is here.

        One that follows its merchant is behind only where an event of its own was missed, however many of others were.
        """
        seen = self._seen(place)
        if seen is None:
            if not self.holds(place.offsets):
                return None
            seen = 0
        owed: list[Entry] = []
        for entry in reversed(self._of.get(place.merchant_id, ())):
            if entry.number <= seen:
                break
            if entry.offset >= place.offsets[entry.partition]:
                owed.append(entry)
        owed.reverse()
        items: list[Item] = []
        for entry in owed[:limit]:
            place.offsets[entry.partition] = entry.offset + 1
            items.append(Item(entry.partition, entry.offset, entry.value, place.cursor, entry.traceparent))
        if len(owed) > limit:
            place.seen = (self, owed[limit].number - 1)
        else:
            place.seen = (self, self._number)
            place.offsets = [max(pair) for pair in zip(place.offsets, self.positions, strict=True)]
        return items

    def _seen(self, place: Place) -> int | None:
        followed = self._followed.get(place.merchant_id)
        if place.seen is None or place.seen[0] is not self or followed is None:
            return None
        return place.seen[1] if followed.gone <= place.seen[1] else None
