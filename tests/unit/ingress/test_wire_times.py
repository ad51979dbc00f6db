"""How long a connection is waited for: its head, its rest, its next request; what a client leaves when it goes."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from ingress import __main__ as main
from ingress import wire
from tests.unit.ingress.fakes import World
from tests.unit.ingress.raw import ALIVE, CREATE, RAW, client, connected, serving

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("start", [b"", b"G", ALIVE, ALIVE + b"\r\n" + b"\r\n", ALIVE + b"\r\n" + ALIVE])
async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.2)
    async with client() as found:
        found.writer.write(start)
        for _ in range(start.count(b"\r\n\r\n")):
            assert (await found.answer())[0] == 200
        assert await found.closed() == b""


async def test_what_was_answered_before_it_had_come_leaves_the_connection_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.1)
    async with client(idle_s=60) as found:
        found.writer.write(CREATE.replace(b"application/json", b"text/plain") + b"content-length: 2\r\n\r\n")
        assert (await found.answer())[0] == 415
        found.writer.write(b"{}")
        await asyncio.sleep(0.3)
        found.writer.write(ALIVE + b"\r\n")
        assert (await found.answer())[0] == 200


@pytest.mark.parametrize("rest", [b"{}", b"{}\r\n"])
async def test_a_connection_that_is_idle_ends(rest: bytes) -> None:
    async with client(idle_s=0.2) as found:
        found.writer.write(CREATE.replace(b"application/json", b"text/plain") + b"content-length: 2\r\n\r\n")
        assert (await found.answer())[0] == 415
        found.writer.write(rest)
        assert await found.closed() == b""


@pytest.mark.parametrize("rest", [b"{", b"{}" + b"GET / HT"])
async def test_what_has_begun_at_an_answers_end_has_to_come_soon(monkeypatch: pytest.MonkeyPatch, rest: bytes) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.1)
    async with client(idle_s=60) as found:
        found.writer.write(CREATE.replace(b"application/json", b"text/plain") + b"content-length: 2\r\n\r\n" + rest)
        assert (await found.answer())[0] == 415
        assert await found.closed() == b""


async def test_blank_lines_prolong_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.1)
    async with client(idle_s=60) as found:
        found.writer.write(ALIVE + b"\r\n")
        assert (await found.answer())[0] == 200
        found.writer.write(b"\r\n")
        assert await found.closed() == b""


async def test_a_connection_that_is_reset_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its timer would hold all that the request had brought for as long as the connection could have been idle."""
    lost: asyncio.Future[tuple[Exception | None, object]] = asyncio.get_running_loop().create_future()
    whole = wire.BoundedProtocol.connection_lost

    def connection_lost(self: wire.BoundedProtocol, exc: Exception | None) -> None:
        whole(self, exc)
        lost.set_result((exc, self.timeout_keep_alive_task))

    monkeypatch.setattr(wire.BoundedProtocol, "connection_lost", connection_lost)
    async with client(idle_s=60) as found:
        found.writer.write(ALIVE + b"\r\n")
        assert (await found.answer())[0] == 200
        reset = struct.pack("ii", 1, 0)
        found.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        found.writer.transport.abort()
        async with asyncio.timeout(5):
            error, timer = await lost
    assert isinstance(error, ConnectionResetError)
    assert timer is None


def test_clients_and_load_balancers_close_idle_connections_first() -> None:
    """A connection that the server closes while a request is on its way costs that request its answer."""
    longest_default_s = 90  # Go's net/http; AWS ALB and nginx have 60, httpx 5
    assert main.config(World().app()).timeout_keep_alive > longest_default_s


async def test_a_head_that_dribbles_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.2)
    async with client() as found:
        for byte in ALIVE * 20:
            found.writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
            if found.reader.at_eof() or found.reader.exception() or found.writer.is_closing():  # or reset
                break
        else:
            raise AssertionError("never closed")


async def test_many_slow_clients_do_not_hinder_a_quick_one() -> None:
    world = World(in_flight_max=10, working=10)
    async with serving(world) as port:
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        for _, writer in slow:
            writer.write(CREATE + b"content-length: 500\r\n\r\n{")
        async with connected(port) as quick:
            quick.writer.write(CREATE + b"content-length: %d\r\n\r\n" % len(RAW) + RAW)
            assert (await quick.answer())[0] == 201
        for _, writer in slow:
            writer.transport.abort()
