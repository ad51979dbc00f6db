"""A stream: everything owed, heartbeats that move the id on, and an end that the client can go on from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from starlette.requests import ClientDisconnect

from ingress import cursor
from ingress.catchup import Gone, Readers
from ingress.feed import Bounds, Feed
from ingress.presence import Away
from ingress.problem import Problem
from ingress.recent import Item, Place, Recent
from ingress.stream import ABORT, EventStream, Opening
from ingress.tail import Tail


@dataclass
class MemoryTail:
    """The recent events without a Kafka that could be away unless it is told to."""

    present: Recent | None = field(default_factory=lambda: Recent([0, 0], most=50))
    followers: int = 0

    async def recent(self, within_s: float) -> Recent:
        assert within_s <= 2
        await asyncio.sleep(0)
        if self.present is None:
            raise Away("kafka")
        return self.present

    async def close(self) -> None:
        pass


@dataclass
class MemoryReaders:
    """A topic that holds nothing from before ``first``; slices come out of ``older``."""

    older: list[tuple[int, int]] = field(default_factory=list)
    first: int = 0
    last: int = 100

    async def begins(self, count: int) -> list[int]:
        return [self.first] * count

    async def ends(self, count: int) -> list[int]:
        return [self.last] * count

    async def slice(self, place: Place, recent: Recent, limit: int) -> list[Item]:
        await asyncio.sleep(0)
        items: list[Item] = []
        for partition, offset in self.older:
            if offset >= place.offsets[partition] and len(items) < limit:
                place.offsets[partition] = offset + 1
                items.append(Item(partition, offset, b"v", place.cursor))
        if not items:
            place.offsets = list(recent.starts)
        return items

    async def close(self) -> None:
        pass


def frames(items: list[Item]) -> bytes:
    return b"".join(b"id: %s\ndata: %d/%d\n\n" % (i.cursor.encode(), i.partition, i.offset) for i in items)


@dataclass
class Client:
    """One that reads; ``stalls`` makes it stop."""

    feed: Feed
    tail: MemoryTail
    readers: MemoryReaders
    bounds: Bounds = field(default_factory=lambda: Bounds(10, 3))
    said: bytes = b""
    status: int = 0
    ended: bool = False
    aborted: bool = False
    stalls: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)
    key_works: bool = True

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if self.stalls:
            await asyncio.sleep(60)
        self.said += message.get("body", b"")
        self.ended = not message.get("more_body", False)

    async def allowed(self) -> None:
        if not self.key_works:
            raise Problem(401, "invalid-api-key", "no")

    def abort(self) -> None:
        self.aborted = True

    async def serve(self, after: str = "beginning", *, head: bool = False, heartbeat_s: float = 0.05) -> None:
        place = None
        with suppress(Away):
            place = await self.feed.locate("mine", after)
        opening = Opening("mine", after, place, self.allowed)
        stream = EventStream(self.feed, self.bounds, opening, frames, heartbeat_s=heartbeat_s, slow_s=0.1)
        await stream({ABORT: self.abort, "kifiya.head": head}, self.receive, self.send)

    @property
    def events(self) -> list[str]:
        return [line.removeprefix("data: ") for line in self.said.decode().splitlines() if line.startswith("data")]

    @property
    def last_id(self) -> tuple[int, ...]:
        return cursor.decode([line[4:] for line in self.said.decode().splitlines() if line.startswith("id: ")][-1])

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


def client() -> Client:
    tail, readers = MemoryTail(), MemoryReaders()

    async def ping() -> None:
        pass

    return Client(Feed(cast("Tail", tail), cast("Readers", readers), ping), tail, readers)


@asynccontextmanager
async def open_(found: Client, after: str = "beginning", **named: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(found.serve(after, **named))
    try:
        await found.until(lambda: found.said)
        yield task
    finally:
        found.left.set()
        await asyncio.wait({task}, timeout=5)
        assert task.done()
        assert found.tail.followers == 0
        found.bounds.check("mine")


def add(found: Client, partition: int, offset: int, merchant: str = "mine") -> None:
    assert found.tail.present is not None
    found.tail.present.add(partition, offset, merchant, b"v")


async def test_what_came_before_then_what_comes() -> None:
    found = client()
    found.tail.present = Recent([2, 1])
    found.readers.older = [(0, 0), (0, 1), (1, 0)]
    async with open_(found, heartbeat_s=60):
        await found.until(lambda: len(found.events) == 3)
        add(found, 1, 1)
        add(found, 0, 2, "theirs")
        add(found, 1, 2)
        await found.until(lambda: len(found.events) == 5)
    assert found.events == ["0/0", "0/1", "1/0", "1/1", "1/2"]


async def test_more_than_a_batch_at_once_comes_whole() -> None:
    found = client()
    found.tail.present = Recent([0, 0], most=500)
    for offset in range(300):
        add(found, 0, offset)
    async with open_(found, heartbeat_s=60):
        await found.until(lambda: len(found.events) == 300)
    assert found.events == [f"0/{offset}" for offset in range(300)]


async def test_a_heartbeat_moves_the_id_over_what_is_others() -> None:
    found = client()
    async with open_(found):
        for offset in range(200):  # more than is kept
            add(found, 0, offset, "theirs")
        await found.until(lambda: b"id: " in found.said)
        assert found.events == []
        assert found.last_id == (200, 0)
        await found.until(lambda: found.said.count(b": heartbeat\n") >= 3)
        assert found.said.count(b"id: ") == 1


async def test_kafka_away_is_heartbeats_and_then_the_events() -> None:
    found = client()
    recent, found.tail.present = found.tail.present, None
    async with open_(found, cursor.encode([0, 0])):
        await found.until(lambda: found.said.count(b": heartbeat\n") >= 2)
        found.tail.present = recent
        add(found, 0, 0)
        await found.until(lambda: found.events)
        add(found, 0, 1)
        await found.until(lambda: len(found.events) == 2)


async def test_a_point_that_is_gone_meanwhile_ends_the_stream() -> None:
    found = client()
    found.tail.present, found.readers.first = None, 5
    async with open_(found, cursor.encode([0, 0])) as task:
        found.tail.present = Recent([10, 10])
        await asyncio.wait_for(task, 5)
    assert found.ended
    with pytest.raises(Gone):
        await found.feed.locate("mine", cursor.encode([0, 0]))


@pytest.mark.parametrize("offsets", [[0, 0, 0], [0], [0, 101]])
async def test_what_the_topic_does_not_hold_is_gone(offsets: list[int]) -> None:
    with pytest.raises(Gone):
        await client().feed.locate("mine", cursor.encode(offsets))


async def test_a_cursor_ahead_of_this_process_is_no_error() -> None:
    found = client()
    async with open_(found, cursor.encode([2, 0]), heartbeat_s=60):
        for offset in range(4):
            add(found, 0, offset)
        await found.until(lambda: len(found.events) == 2)
    assert found.events == ["0/2", "0/3"]


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    found = client()
    task = asyncio.create_task(found.serve(heartbeat_s=60))
    await found.until(lambda: found.said)
    found.stalls = True
    add(found, 0, 0)
    with pytest.raises(ClientDisconnect):
        await asyncio.wait_for(task, 5)
    assert found.aborted
    assert found.tail.followers == 0


async def test_the_end_of_the_process_ends_streams_cleanly() -> None:
    found = client()
    async with open_(found, heartbeat_s=60) as task:
        add(found, 0, 0)
        found.feed.stop()
        await asyncio.wait_for(task, 20)
        assert found.ended
        assert found.events == ["0/0"]


async def test_a_revoked_key_hears_of_nothing_more_even_where_events_never_pause() -> None:
    found = client()
    async with open_(found, heartbeat_s=60) as task:
        add(found, 0, 0)
        await found.until(lambda: found.events)
        found.key_works = False
        add(found, 0, 1)
        await asyncio.wait_for(task, 5)
    assert found.ended
    assert found.events == ["0/0"]


async def test_a_revoked_key_ends_its_streams() -> None:
    found = client()
    async with open_(found) as task:
        found.key_works = False
        await asyncio.wait_for(task, 5)
        assert found.ended


async def test_head_gets_the_head_only() -> None:
    found = client()
    await asyncio.wait_for(found.serve(head=True), 5)
    assert (found.status, found.said, found.ended) == (200, b"", True)


async def test_streams_are_bounded() -> None:
    bounds = Bounds(3, 2)
    with bounds.stream("a"), bounds.stream("a"):
        with pytest.raises(Problem) as one, bounds.stream("a"):
            pass
        assert (one.value.status, one.value.retry_after_s) == (429, 5)
        with bounds.stream("b"):
            with pytest.raises(Problem) as all_, bounds.stream("c"):
                pass
            assert all_.value.status == 503
    assert bounds.open == 0
