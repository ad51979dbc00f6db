"""A TCP proxy that is as bad as it is told to be, in front of one server: the network between it and its clients."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CHUNK: Final = 64 * 1024
CONNECT_S: Final = 5.0


class Mode(StrEnum):
    """What becomes of the bytes; a closed set.

    ``STALL``: none moves either way, and connections stay open; of one that is reset meanwhile none ever will, for
    what a sender's kernel has not got rid of goes with it. ``BLACKHOLE``: a stall at whose end the connections that had
    something to move are reset. ``DROP_ANSWERS``: requests reach the server, answers
    go nowhere. ``RESET``: connections are reset, those that are there and those that come.
    """

    OPEN = "open"
    LATENCY = "latency"
    STALL = "stall"
    BLACKHOLE = "blackhole"
    DROP_ANSWERS = "drop-answers"
    RESET = "reset"


@dataclass(slots=True, eq=False)
class _Link:
    """One connection of a client, and its counterpart."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter


class Proxy:
    """Listens on ``port`` and leads to ``host:target``. An answer that was dropped ends its connection, by a reset."""

    def __init__(self, host: str, target: int, *, chance: random.Random) -> None:
        self._host = host
        self._target = target
        self._chance = chance
        self._mode = Mode.OPEN
        self._latency_s = 0.0
        self._flows = asyncio.Event()
        self._flows.set()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut: set[_Link] = set()
        self._held: set[_Link] = set()
        self.port = 0
        self.dropped = 0
        """Bytes of answers that went nowhere."""

    def become(self, mode: Mode, *, latency_ms: int = 0) -> None:
        """Treat what comes from now on so. ``latency_ms`` each way, half of it jitter; the order of bytes is kept."""
        before, self._mode = self._mode, mode
        self._latency_s = latency_ms / 1000 if mode is Mode.LATENCY else 0.0
        if before is Mode.BLACKHOLE and mode is not before:
            for link in list(self._held):
                _reset(link)
            self._held.clear()
        if mode in {Mode.STALL, Mode.BLACKHOLE}:
            self._flows.clear()
        else:
            self._flows.set()
        if before is Mode.DROP_ANSWERS:
            for link in self._cut:
                _reset(link)
            self._cut.clear()
        if mode is Mode.RESET:
            for link in list(self._links):
                _reset(link)

    def turn(self, target: int) -> None:
        """Lead to this port from now on; connections that lead to the one before are reset."""
        self._target = target
        for link in list(self._links):
            _reset(link)

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[Proxy]:
        """Serve for the block, on this port or a free one. Raises OSError."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self._flows.set()
            for link in list(self._links):
                _reset(link)
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._mode is Mode.RESET:
            _abort(writer)
            return
        try:
            async with asyncio.timeout(CONNECT_S):
                there, back = await asyncio.open_connection(self._host, self._target)
        except (OSError, TimeoutError):
            _abort(writer)
            return
        link = _Link(writer, back)
        self._links.add(link)
        try:
            requests = asyncio.create_task(self._pump(link, reader, back, lambda: False))
            answers = asyncio.create_task(self._pump(link, there, writer, lambda: self._drops(link)))
            _, left = await asyncio.wait({requests, answers}, return_when=asyncio.FIRST_COMPLETED)
            for other in left:
                other.cancel()
            await asyncio.wait({requests, answers})
        finally:
            self._links.discard(link)
            self._cut.discard(link)
            self._held.discard(link)
            _close(link)

    def _drops(self, link: _Link) -> bool:
        """Whether this answer goes nowhere; then no later one of the connection may come through, either."""
        if self._mode is Mode.DROP_ANSWERS:
            self._cut.add(link)
        return link in self._cut

    async def _pump(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, drops: Callable[[], bool]
    ) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                if self._latency_s:
                    await asyncio.sleep(self._latency_s * self._chance.uniform(0.5, 1.0))
                if self._mode is Mode.BLACKHOLE:
                    self._held.add(link)
                await self._flows.wait()
                if source.exception() is not None or sink.is_closing():
                    return
                if drops():
                    self.dropped += len(data)
                    continue
                sink.write(data)
                await sink.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset: with nothing to linger for, the kernel sends RST."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _reset(link: _Link) -> None:
    _abort(link.client)
    _abort(link.server)


def _close(link: _Link) -> None:
    link.client.close()
    link.server.close()
