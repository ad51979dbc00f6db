"""The proxy does to a connection what its mode says, and serves again when it is open."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ops.chaos.proxy import Mode, Proxy


class Echo:
    """Answers each line with itself in capitals, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self.heard.append(line)
            writer.write(line.upper())
        writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    try:
        proxy = Proxy("127.0.0.1", server.sockets[0].getsockname()[1], chance=random.Random(1))
        async with proxy.listening():
            yield proxy, echo
    finally:
        server.close()


async def say(link: tuple[asyncio.StreamReader, asyncio.StreamWriter], word: bytes, within_s: float = 2.0) -> bytes:
    link[1].write(word + b"\n")
    return await asyncio.wait_for(link[0].readline(), within_s)


async def test_a_turn_resets_what_is_there_and_leads_all_that_comes_to_the_other_server() -> None:
    async with proxied() as (proxy, first), proxied() as (other, second):
        link = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(link, b"a") == b"A\n"
        proxy.turn(other.port)
        with pytest.raises(ConnectionResetError):
            await say(link, b"b")
        link = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(link, b"c") == b"C\n"
        link[1].close()
    assert (first.heard, second.heard) == ([b"a\n"], [b"c\n"])


async def test_open_passes_all_and_a_latency_comes_on_top() -> None:
    async with proxied() as (proxy, _):
        link = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(link, b"a") == b"A\n"
        proxy.become(Mode.LATENCY, latency_ms=100)
        began = time.monotonic()
        assert await say(link, b"b") == b"B\n"
        assert time.monotonic() - began >= 0.1  # half of it each way at least
        proxy.become(Mode.OPEN)
        assert await say(link, b"c") == b"C\n"
        link[1].close()


async def test_a_stall_holds_everything_back_and_loses_nothing() -> None:
    async with proxied() as (proxy, echo):
        link = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(link, b"a") == b"A\n"
        proxy.become(Mode.STALL)
        with pytest.raises(TimeoutError):
            await say(link, b"b", 0.1)
        assert echo.heard == [b"a\n"]
        proxy.become(Mode.OPEN)
        assert await asyncio.wait_for(link[0].readline(), 2) == b"B\n"
        link[1].close()


@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_what_a_stall_held_goes_with_a_reset_and_stays_with_a_close(how: str) -> None:
    async with proxied() as (proxy, echo):
        link = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(link, b"a") == b"A\n"
        proxy.become(Mode.STALL)
        with pytest.raises(TimeoutError):
            await say(link, b"b", 0.1)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            link[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        link[1].close()
        await asyncio.sleep(0.05)  # the proxy hears of it
        proxy.become(Mode.OPEN)
        other = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(other, b"c") == b"C\n"
        other[1].close()
    assert echo.heard == ([b"a\n", b"c\n"] if how == "reset" else [b"a\n", b"b\n", b"c\n"])


async def test_a_blackhole_resets_the_connections_that_had_something_to_move_and_no_other() -> None:
    async with proxied() as (proxy, echo):
        asking, silent = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(2)]
        assert (await say(asking, b"a"), await say(silent, b"b")) == (b"A\n", b"B\n")
        proxy.become(Mode.BLACKHOLE)
        with pytest.raises(TimeoutError):
            await say(asking, b"lost", 0.1)
        proxy.become(Mode.OPEN)
        with pytest.raises(ConnectionResetError):
            await say(asking, b"more")
        assert await say(silent, b"c") == b"C\n"
        other = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(other, b"d") == b"D\n"
        for link in (silent, other):
            link[1].close()
    assert echo.heard == [b"a\n", b"b\n", b"c\n", b"d\n"]


async def test_a_dropped_answer_is_heard_by_the_server_and_never_by_the_client() -> None:
    async with proxied() as (proxy, echo):
        link = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.become(Mode.DROP_ANSWERS)
        with pytest.raises(TimeoutError):
            await say(link, b"a", 0.2)
        assert (echo.heard, proxy.dropped) == ([b"a\n"], 2)
        proxy.become(Mode.OPEN)
        with pytest.raises(ConnectionResetError):  # not a later answer in place of the one that was dropped
            await say(link, b"b")
        other = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(other, b"c") == b"C\n"
        other[1].close()


async def test_a_reset_ends_what_is_there_and_what_comes() -> None:
    async with proxied() as (proxy, _):
        link = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(link, b"a") == b"A\n"
        proxy.become(Mode.RESET)
        with pytest.raises(ConnectionResetError):
            await say(link, b"b")
        late = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await say(late, b"c")
        proxy.become(Mode.OPEN)
        good = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(good, b"d") == b"D\n"
        good[1].close()


async def test_a_server_that_is_away_is_a_reset() -> None:
    proxy = Proxy("127.0.0.1", 9, chance=random.Random(1))
    async with proxy.listening():
        link = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await say(link, b"a")
