"""Raw bytes on a socket: what is not HTTP, what never ends, and what grows; each connection has an end."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from ingress import __main__ as main
from ingress import requests, wire
from ingress.security_headers import hsts
from tests.unit.ingress.fakes import API_KEY, AUTHORIZED, BODY, ID, KEY, World

RAW = json.dumps(BODY).encode()
HOST = b"host: gateway\r\n"
KIND = b"content-type: application/json\r\n"
CREATE = b"POST /v1/payments HTTP/1.1\r\n" + HOST + KIND + b"idempotency-key: " + KEY.encode() + b"\r\n"
CREATE += b"authorization: Bearer " + API_KEY.encode() + b"\r\n"
ALIVE = b"GET /healthz HTTP/1.1\r\n" + HOST

pytestmark = pytest.mark.alone


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


def code(body: bytes) -> str:
    return str(json.loads(body)["code"])


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 50 + b"\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", b"FETCH / HTTP/1.1\r\n" + HOST + b"\r\n",
        CREATE + b"content-length: x\r\n\r\n", CREATE + b"content-length: -1\r\n\r\n",
        CREATE + b"content-length: 1e3\r\n\r\n",
        CREATE + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        CREATE + b"content-length: 99999999999999999999\r\n\r\n",
        CREATE + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        CREATE + b"transfer-encoding: gzip, chunked, x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n", b"GET / HTTP/1.1\r\nx : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\r\n folded\r\n\r\n",
    ],
)  # fmt: skip
async def test_what_is_not_http_is_a_400_and_the_end_of_the_connection(raw: bytes) -> None:
    async with client() as found:
        found.writer.write(raw)
        status, headers, body = await found.answer()
        assert (status, code(body), headers["connection"]) == (400, "invalid-http", "close")
        assert headers["content-type"] == "application/problem+json"
        assert await found.closed() == b""


@pytest.mark.parametrize(
    ("raw", "status"), [(b"GET\r\n\r\n", 400), (ALIVE + b"x: " + b"y" * 17_000 + b"\r\n\r\n", 431)]
)
async def test_an_answer_from_below_the_app_is_as_safe_as_any_other(raw: bytes, status: int) -> None:
    async with client() as found:
        found.writer.write(ALIVE + b"\r\n")
        _, expected, _ = await found.answer()
        found.writer.write(raw)
        found_status, headers, _ = await found.answer()
        assert found_status == status
        for name in ("x-content-type-options", "cache-control", "referrer-policy", "content-security-policy",
                     "strict-transport-security"):  # fmt: skip
            assert headers[name] == expected[name]
        assert len(headers["x-request-id"]) == 16


async def test_a_chunk_that_is_no_chunk_ends_the_connection_and_publishes_nothing() -> None:
    world = World()
    async with client(world) as found:
        found.writer.write(CREATE + b"transfer-encoding: chunked\r\n\r\nxyz\r\n")
        await found.closed()
    assert world.kafka.records == []


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\n" + HOST,
        ALIVE + b"x: " + b"y" * 17_000 + b"\r\n",
        ALIVE + b"x" * 17_000 + b": y\r\n",
        ALIVE + b"".join(b"x%d: y\r\n" % number for number in range(101)),
        ALIVE + b"".join(b"x%d: %s\r\n" % (number, b"y" * 1000) for number in range(20)),
    ],
)
async def test_a_large_head_is_a_431(head: bytes) -> None:
    async with client() as found:
        found.writer.write(head + b"\r\n")
        status, _, body = await found.answer()
        assert (status, code(body)) == (431, "headers-too-large")
        assert await found.closed() == b""


@pytest.mark.parametrize("start", [b"GET /", ALIVE + b"x: ", ALIVE + b"x"])
async def test_a_head_that_grows_is_a_431(start: bytes) -> None:
    async with client() as found:
        found.writer.write(start)
        answering = asyncio.create_task(found.answer())
        for _ in range(60):
            found.writer.write(b"x" * 1000)
            await asyncio.sleep(0.002)
            if answering.done():
                break
        status, _, body = await answering
        assert (status, code(body)) == (431, "headers-too-large")


async def test_a_head_of_the_allowed_size_passes() -> None:
    async with client() as found:
        found.writer.write(ALIVE + b"".join(b"x%d: %s\r\n" % (number, b"y" * 150) for number in range(98)) + b"\r\n")
        assert (await found.answer())[0] == 200


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        ALIVE + b"x: ",
        ALIVE,
        CREATE + b"transfer-encoding: chunked\r\n\r\n0\r\ntrailer: ",
        CREATE + b"transfer-encoding: chunked\r\n\r\n1;extension=",
        CREATE + b"transfer-encoding: chunked\r\n\r\n",
        ALIVE + b"content-length: 1000000000\r\n\r\n",
        CREATE + b"content-length: 1000000\r\n\r\n",
    ],
)
async def test_what_grows_without_end_is_cut_off(start: bytes) -> None:
    piece = b"1\r\n \r\n" * 1000 if start.endswith(b"chunked\r\n\r\n") else b"x" * 10_000
    if start == ALIVE:
        piece = b"x: y\r\n" * 1000
    async with client() as found:
        found.writer.write(start)
        sent = await found.flood(piece, 64 * 1024 * 1024)
        assert sent < 16 * 1024 * 1024  # the kernel's buffers hold some of it


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


@pytest.mark.parametrize("end", [b"content-length: 500\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"])
async def test_a_body_that_never_ends_is_a_408(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    defaults = requests.json_body.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "within_s", 0.2)
    async with client() as found:
        found.writer.write(CREATE + end)
        status, headers, body = await found.answer()
        assert (status, code(body), headers["connection"]) == (408, "body-too-slow", "close")
        assert await found.closed() == b""


@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_a_body_may_come_in_pieces(step: int) -> None:
    world = World()
    async with client(world) as found:
        raw = CREATE + b"content-length: %d\r\n\r\n" % len(RAW) + RAW
        for start in range(0, len(raw), step):
            found.writer.write(raw[start : start + step])
            await asyncio.sleep(0)
        assert (await found.answer())[0] == 201
    assert len(world.kafka.records) == 1


async def test_a_client_that_leaves_mid_body_publishes_nothing_and_logs_nothing(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    world = World()
    async with serving(world) as port:
        for _ in range(5):
            async with connected(port) as leaving:
                leaving.writer.write(CREATE + b"content-length: 500\r\n\r\n" + RAW)
                await leaving.writer.drain()
                await asyncio.sleep(0.01)
        async with connected(port) as other:
            other.writer.write(ALIVE + b"\r\n")
            assert (await other.answer())[0] == 200
    assert world.kafka.records == []
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]
    assert "Traceback" not in capfd.readouterr().err


async def test_a_client_that_leaves_while_kafka_is_slow_has_paid_once() -> None:
    world = World()
    world.kafka.gate = asyncio.Event()
    async with serving(world) as port:
        async with connected(port) as leaving:
            leaving.writer.write(CREATE + b"content-length: %d\r\n\r\n" % len(RAW) + RAW)
            while not world.keys.entries:
                await asyncio.sleep(0.001)
        world.kafka.gate.set()
        async with connected(port) as again:
            async with asyncio.timeout(5):
                while not world.kafka.records:
                    await asyncio.sleep(0.001)
            again.writer.write(CREATE + b"content-length: %d\r\n\r\n" % len(RAW) + RAW)
            status, _, body = await again.answer()
            assert (status, json.loads(body)["payment_id"]) == (409, ID)
    assert len(world.kafka.records) == 1


async def test_an_oversize_body_is_refused_before_it_is_sent() -> None:
    async with client() as found:
        found.writer.write(CREATE + b"content-length: 5000000\r\nexpect: 100-continue\r\n\r\n")
        status, headers, body = await found.answer()
        assert (status, code(body), headers["connection"]) == (413, "too-large", "close")


async def test_a_body_is_asked_for_where_the_client_waits() -> None:
    async with client() as found:
        found.writer.write(CREATE + b"content-length: %d\r\nexpect: 100-continue\r\n\r\n" % len(RAW))
        assert await found.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        found.writer.write(RAW)
        assert (await found.answer())[0] == 201


async def test_an_oversize_body_is_answered_though_it_was_sent_whole() -> None:
    async with client() as found:
        found.writer.write(CREATE + b"content-length: 300000\r\n\r\n" + b" " * 300_000)
        assert (await found.answer())[0] == 413


async def test_head_has_no_body_and_the_next_answer_is_in_its_place() -> None:
    async with client() as found:
        found.writer.write(ALIVE.replace(b"GET", b"HEAD") + b"\r\n" + ALIVE + b"\r\n")
        status, headers, _ = await found.answer(head=True)
        assert (status, headers["content-length"]) == (200, "15")
        assert (await found.answer())[2] == b'{"status":"ok"}'


async def test_pipelined_requests_are_answered_in_order() -> None:
    world = World()
    async with client(world) as found:
        one = CREATE + b"content-length: %d\r\n\r\n" % len(RAW) + RAW
        found.writer.write(one + one + ALIVE + b"\r\n" + one.replace(b"12.50", b"99.00"))
        assert [(await found.answer())[0] for _ in range(4)] == [201, 409, 200, 422]
    assert len(world.kafka.records) == 1


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
async def test_no_upgrade_is_given(upgrade: bytes) -> None:
    async with client() as found:
        found.writer.write(ALIVE + b"connection: upgrade\r\nupgrade: " + upgrade + b"\r\nsec-websocket-key: x\r\n\r\n")
        assert (await found.answer())[0] == 200


async def test_the_server_as_a_whole_has_no_options() -> None:
    async with client() as found:
        found.writer.write(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n")
        status, _, body = await found.answer()
        assert (status, code(body)) == (404, "not-found")


async def test_an_absolute_address_is_the_path_in_it() -> None:
    async with client() as found:
        found.writer.write(b"GET http://evil.example/healthz?x=%ff HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await found.answer())[0] == 200


@pytest.mark.parametrize("path", [b"/v1/payments/%ff%fe", b"/v1/payments/%00", b"/v1/payments/%", b"/v1/payments/%zz"])
async def test_odd_percent_codes_are_not_found(path: bytes) -> None:
    async with client() as found:
        key = b"authorization: " + AUTHORIZED["Authorization"].encode() + b"\r\n"
        found.writer.write(b"GET " + path + b" HTTP/1.1\r\n" + HOST + key + b"\r\n")
        assert (await found.answer())[0] == 404


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
