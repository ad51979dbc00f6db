"""A merchant's events from any point on: out of the recent ones where they reach, else out of the topic.

No event is skipped and none comes twice, whichever of the two it came from: a place names the next offset of each
partition, and both give what lies from there on, in each partition's order, so in each payment's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from ingress import cursor
from ingress.catchup import Gone, Readers
from ingress.presence import Away
from ingress.problem import Problem
from ingress.recent import Item, Place, Recent
from ingress.tail import Tail

BEGINNING = "beginning"
LATEST = "latest"
PATIENCE_S = 2.0


class Bounds:
    """How many streams there may be, of one merchant and in all."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._of: dict[str, int] = {}

    @property
    def open(self) -> int:
        """How many there are."""
        return sum(self._of.values())

    @contextmanager
    def stream(self, merchant_id: str) -> Iterator[None]:
        """One more, for the block. Raises Problem 429, 503."""
        self.check(merchant_id)
        self._of[merchant_id] = self._of.get(merchant_id, 0) + 1
        try:
            yield
        finally:
            self._of[merchant_id] -= 1
            if not self._of[merchant_id]:
                del self._of[merchant_id]

    def check(self, merchant_id: str) -> None:
        """Raises Problem where one more would be too many."""
        if self._of.get(merchant_id, 0) >= self._most_of_one:
            detail = f"at most {self._most_of_one} streams of one merchant; close one first"
            raise Problem(429, "too-many-streams", detail, retry_after_s=5)
        if self.open >= self._most:
            raise Problem(503, "too-many-streams", "no stream is free; ask for JSON, or again", retry_after_s=5)


class Feed:
    """What the routes read from; ``ping`` tells whether Kafka answers now (raises anything otherwise)."""

    def __init__(self, tail: Tail, readers: Readers, ping: Callable[[], Awaitable[None]]) -> None:
        self._ping = ping
        self._answered_at = float("-inf")
        self.stopping = False
        self._tail = tail
        self._readers = readers
        self._wakes: set[Callable[[], None]] = set()

    async def check(self) -> None:
        """Ask whether Kafka is there, at most once a second. Raises Away."""
        if time.monotonic() - self._answered_at > 1.0:
            try:
                async with asyncio.timeout(1.0):
                    await self._ping()
            except Exception as error:
                raise Away("kafka: the events cannot be read") from error
            self._answered_at = time.monotonic()

    def stop(self) -> None:
        """End all streams: the process is about to."""
        self.stopping = True
        for wake in list(self._wakes):
            wake()

    async def close(self) -> None:
        """Close what is connected."""
        self.stop()
        await self._tail.close()
        await self._readers.close()

    async def locate(self, merchant_id: str, after: str) -> Place:
        """The place of a cursor, of ``beginning`` or of ``latest``. Raises InvalidCursor, Gone, Away."""
        offsets = None if after in {BEGINNING, LATEST} else list(cursor.decode(after))
        recent = await self._tail.recent(PATIENCE_S)
        count = len(recent.positions)
        if after == LATEST:
            return Place(merchant_id, list(recent.positions))
        if offsets is None:
            return Place(merchant_id, await self._readers.begins(count))
        if len(offsets) != count:
            raise Gone
        place = Place(merchant_id, offsets)
        if _beyond(offsets, recent.positions) and _beyond(offsets, await self._readers.ends(count)):
            raise Gone
        if not recent.holds(offsets) and _beyond(await self._readers.begins(count), offsets):
            raise Gone
        return place

    async def more(self, place: Place, limit: int) -> tuple[list[Item], bool]:
        """What is owed next, and whether that was all there is now. Raises Gone, Away: the place has not moved."""
        recent = await self._tail.recent(PATIENCE_S)
        items = recent.take(place, limit)
        if items is not None:
            return items, len(items) < limit
        return await self._readers.slice(place, recent, limit), False

    @contextmanager
    def following(self, place: Place) -> Iterator[Follower]:
        """Tells when there may be more, for the block."""
        follower = Follower(place.merchant_id)
        self._tail.followers += 1
        self._wakes.add(follower.wake.set)
        try:
            yield follower
        finally:
            self._tail.followers -= 1
            self._wakes.discard(follower.wake.set)
            follower.of(None)

    def attach(self, follower: Follower) -> None:
        """Let it follow the recent events that are there now."""
        follower.of(self._tail.present)


def _beyond(some: list[int], others: list[int]) -> bool:
    return any(one > other for one, other in zip(some, others, strict=True))


class Follower:
    """One stream's bell; it follows the recent events even where Kafka's absence made them new ones."""

    def __init__(self, merchant_id: str) -> None:
        self.wake = asyncio.Event()
        self._merchant_id = merchant_id
        self._recent: Recent | None = None

    def of(self, recent: Recent | None) -> None:
        """Follow these, and no others any more."""
        if recent is self._recent:
            return
        if self._recent is not None:
            self._recent.unfollow(self._merchant_id, self.wake.set)
        self._recent = recent
        if recent is not None:
            recent.follow(self._merchant_id, self.wake.set)
