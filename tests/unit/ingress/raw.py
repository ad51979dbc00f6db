"""One HTTP connection over the app in memory, byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from ingress import wire
from ingress.security_headers import hsts
from tests.unit.ingress.fakes import API_KEY, BODY, KEY, World

RAW = json.dumps(BODY).encode()
HOST = b"host: gateway\r\n"
KIND = b"content-type: application/json\r\n"
CREATE = b"POST /v1/payments HTTP/1.1\r\n" + HOST + KIND + b"idempotency-key: " + KEY.encode() + b"\r\n"
CREATE += b"authorization: Bearer " + API_KEY.encode() + b"\r\n"
ALIVE = b"GET /healthz HTTP/1.1\r\n" + HOST


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body."""
        async with asyncio.timeout(5):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            assert lines[0].startswith("HTTP/1.1 "), lines[0]
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = b"" if head else await self.reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1]), headers, body

    async def closed(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def flood(self, piece: bytes, most: int) -> int:
        """Send until the server closes; the bytes that it let pass."""
        sent = 0
        try:
            while sent < most and not self.reader.at_eof():
                self.writer.write(piece)
                async with asyncio.timeout(5):
                    await self.writer.drain()
                sent += len(piece)
                await asyncio.sleep(0)
        except (ConnectionError, TimeoutError):
            pass
        return sent


@asynccontextmanager
async def serving(world: World, idle_s: Any = 1) -> AsyncIterator[int]:
    config = uvicorn.Config(
        world.app(), http=wire.BoundedProtocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=idle_s,
        headers=hsts(60),
    )  # fmt: skip
    config.load()
    state = ServerState()
    state.default_headers = config.encoded_headers
    server = await asyncio.get_running_loop().create_server(
        lambda: wire.BoundedProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in state.tasks:
            task.cancel()
        if state.tasks:
            await asyncio.wait(state.tasks)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def client(world: World | None = None, idle_s: Any = 1) -> AsyncIterator[Client]:
    async with serving(world or World(), idle_s) as port, connected(port) as found:
        yield found
