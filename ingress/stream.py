"""One client's Server-Sent Events: what is owed, else a heartbeat; ends where the client, its key or the process does.

A client costs two tasks and its place. What it does not read stays in the topic: one that takes nothing for ``SLOW_S``
is cut off, and goes on from the last id it has got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Response
from prometheus_client import Counter, Gauge
from starlette.requests import ClientDisconnect

from ingress.catchup import Gone
from ingress.cursor import InvalidCursor
from ingress.feed import Bounds, Feed, Follower
from ingress.presence import Away
from ingress.problem import Problem
from ingress.recent import Item, Place

STREAMS: Final = Gauge("kifiya_ingress_streams", "Streams of events that are open.")
ENDED: Final = Counter("kifiya_ingress_streams_ended", "Streams that ended, by why.", ["why"])

BATCH: Final = 64
SLOW_S: Final = 20.0
RETRY_MS: Final = 1000
ABORT: Final = "kifiya.abort"
"""In the scope: closes the connection without waiting for what was written to be read."""

Send = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Opening:
    """What a stream begins with. ``place`` is None where Kafka was away: it is looked for while the stream is open."""

    merchant_id: str
    after: str
    place: Place | None
    allowed: Callable[[], Awaitable[None]]
    """Raises Problem when the key that opened the stream is no longer one."""


class EventStream(Response):
    """The answer to a request for ``text/event-stream``."""

    media_type = "text/event-stream"

    def __init__(  # noqa: PLR0913 - where a stream's parts meet
        self,
        feed: Feed,
        bounds: Bounds,
        opening: Opening,
        frames: Callable[[list[Item]], bytes],
        *,
        heartbeat_s: float,
        slow_s: float = SLOW_S,
    ) -> None:
        super().__init__(None, 200, {"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed
        self._bounds = bounds
        self._opening = opening
        self._frames = frames
        self._heartbeat_s = heartbeat_s
        self._slow_s = slow_s

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        """Serve until somebody ends it."""
        with self._bounds.stream(self._opening.merchant_id):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope.get("kifiya.head"):
                await send({"type": "http.response.body", "body": b""})
                return
            STREAMS.inc()
            place = self._opening.place or Place(self._opening.merchant_id, [])
            with self._feed.following(place) as follower:
                leaving = asyncio.create_task(_left(receive, follower))
                why = "defect"
                try:
                    why = await self._serve(place, follower, leaving, send)
                except TimeoutError as error:
                    why = "slow"
                    scope.get(ABORT, lambda: None)()
                    await asyncio.sleep(0)
                    raise ClientDisconnect from error
                finally:
                    leaving.cancel()
                    STREAMS.dec()
                    ENDED.labels(why).inc()

    async def _serve(self, place: Place, follower: Follower, leaving: asyncio.Task[None], send: Send) -> str:
        """Why it ended. Raises TimeoutError where the client does not take what is sent."""
        await self._write(send, b"retry: %d\n\n" % RETRY_MS)
        found: Place | None = place if place.offsets else None
        told = place.cursor if place.offsets else ""
        while not leaving.done():
            try:
                await self._opening.allowed()
            except Problem:
                return await self._end(send, "key")
            follower.wake.clear()
            items: list[Item] = []
            done = True
            with suppress(Away):
                try:
                    found = found or await self._feed.locate(self._opening.merchant_id, self._opening.after)
                    items, done = await self._feed.more(found, BATCH)
                    self._feed.attach(follower)
                except (Gone, InvalidCursor):
                    return await self._end(send, "gone")  # it comes again, and is answered 410
            if self._feed.stopping:
                await self._write(send, self._frames(items))
                return await self._end(send, "stopping")
            if items:
                told = items[-1].cursor
                await self._write(send, self._frames(items))
            if done and not await self._woken(follower):
                told = await self._heartbeat(send, found, told)
        return "client"

    async def _heartbeat(self, send: Send, place: Place | None, told: str) -> str:
        """A comment; and where the place has moved over others' events, the id to go on from, which fires no event."""
        here = place.cursor if place else told
        await self._write(send, b": heartbeat\n" + (b"id: %s\n\n" % here.encode() if here != told else b"\n"))
        return here

    async def _woken(self, follower: Follower) -> bool:
        try:
            await asyncio.wait_for(follower.wake.wait(), self._heartbeat_s)
        except TimeoutError:
            return False
        return True

    async def _write(self, send: Send, chunk: bytes) -> None:
        if chunk:
            async with asyncio.timeout(self._slow_s):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _end(self, send: Send, why: str) -> str:
        async with asyncio.timeout(self._slow_s):
            await send({"type": "http.response.body", "body": b""})
        return why


async def _left(receive: Callable[[], Awaitable[Any]], follower: Follower) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    follower.wake.set()
