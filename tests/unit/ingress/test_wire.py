"""Raw bytes on a socket: what is not HTTP, what never ends, and what grows; each connection has an end."""

from __future__ import annotations

import asyncio
import json

import pytest

from ingress import requests
from ingress.one_write import OneWrite
from tests.unit.ingress.fakes import AUTHORIZED, ID, World
from tests.unit.ingress.raw import ALIVE, CREATE, HOST, RAW, client, connected, serving

pytestmark = pytest.mark.alone


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


async def test_an_answer_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = OneWrite.flush

    def flush(self: OneWrite) -> None:
        if self._held:
            written.append(b"".join(self._held))
        write(self)

    monkeypatch.setattr(OneWrite, "flush", flush)
    async with client() as found:
        for _ in range(2):
            found.writer.write(CREATE + b"content-length: %d\r\n\r\n" % len(RAW) + RAW)
            _, _, body = await found.answer()
            assert [each[:9] for each in written] == [b"HTTP/1.1 "]
            assert written.pop().endswith(b"\r\n\r\n" + body)


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
