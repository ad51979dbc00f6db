"""The provider's clock: a request arrives when its first byte does, whatever came before on its connection."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import sys
import time
from asyncio import trsock

import pytest

from ops.simulator.provider import Provider
from ops.simulator.server import Simulator

GAP_S = 0.3
SLACK_NS = 20_000_000
"""For a pause between the readings of two clocks."""


def kernel_notes() -> bool:
    """Whether this kernel tells when a segment came in, as Linux does; some sandboxes' do not."""
    if sys.platform != "linux":
        return False
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, 35, 1)
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
            client.sendall(b"x")
            return bool(server.recvmsg(1, 64)[1])


def request(key: str) -> tuple[bytes, bytes]:
    body = json.dumps(
        {"reference": key, "amount_minor": 1, "currency": "USD", "merchant_id": "m", "payment_method": "pm_approve"}
    ).encode()
    head = f"POST /v1/charges HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode(), body


async def test_a_body_in_a_segment_of_its_own_is_not_the_arrival_of_the_next_request() -> None:
    provider = Provider(10, 1_000_000_000, time.monotonic_ns)
    async with Simulator(provider, 0).listening("127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for key in ("a", "b"):
            head, body = request(key)
            writer.write(head)
            await writer.drain()
            await asyncio.sleep(0.05)  # the head is parsed before the body comes
            writer.write(body)
            answer = await reader.readuntil(b"}")
            assert b" 201 " in answer.splitlines()[0]
            await asyncio.sleep(GAP_S)
        writer.close()
    first, second = (seen.arrived_ns for seen in provider.log)
    assert (second - first) / 1e9 > GAP_S


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.skipif(not kernel_notes(), reason="this kernel does not note when a segment came in")
async def test_a_request_that_came_while_the_process_was_busy_arrived_when_it_came(connected: bool) -> None:
    provider = Provider(10, 1_000_000_000, time.monotonic_ns)
    async with Simulator(provider, 0).listening("127.0.0.1", 0) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            if connected:
                await asyncio.sleep(0.05)
            began_ns = time.monotonic_ns()
            client.sendall(b"".join(request("a")))
            sent_ns = time.monotonic_ns()
            time.sleep(GAP_S)
            client.setblocking(False)
            assert b" 201 " in (await asyncio.get_running_loop().sock_recv(client, 1000)).splitlines()[0]
    (seen,) = provider.log
    assert began_ns <= seen.arrived_ns + SLACK_NS
    assert seen.arrived_ns <= sent_ns + SLACK_NS


@pytest.mark.parametrize("step_s", [-3600, 3600])
async def test_a_wall_clock_that_is_set_moves_no_arrival(monkeypatch: pytest.MonkeyPatch, step_s: int) -> None:
    """Then the moment of reading has to do, as where the kernel notes nothing."""
    provider = Provider(10, 1_000_000_000, time.monotonic_ns)
    wall_ns = time.time_ns
    async with Simulator(provider, 0).listening("127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + step_s * 1_000_000_000)
        began_ns = time.monotonic_ns()
        writer.write(b"".join(request("a")))
        await reader.readuntil(b"}")
        writer.close()
    assert began_ns <= provider.log[0].arrived_ns <= time.monotonic_ns()


async def test_a_connection_is_served_without_notes_where_no_more_sockets_may_be_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(trsock.TransportSocket, "dup", refused)
    provider = Provider(10, 1_000_000_000, time.monotonic_ns)
    async with Simulator(provider, 0).listening("127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began_ns = time.monotonic_ns()
        writer.write(b"".join(request("a")))
        assert b" 201 " in (await reader.readuntil(b"}")).splitlines()[0]
        writer.close()
    assert began_ns <= provider.log[0].arrived_ns <= time.monotonic_ns()


@pytest.mark.parametrize(
    ("limit", "arrivals", "within"),
    [
        (2, [0, 900, 1000, 1001], [True, True, True, False]),
        (2, [60, 70, 1072, 1050], [True, True, True, False]),  # 60, 70 and 1050 are within one window
        (1, [1100, 50], [True, True]),
        (1, [1100, 200, 1201], [True, True, False]),
    ],
)
def test_requests_are_counted_by_when_they_came_in_whatever_order_they_are_read(
    limit: int, arrivals: list[int], within: list[bool]
) -> None:
    provider = Provider(limit, 1000, time.monotonic_ns)
    assert [provider.over_limit(at) is None for at in arrivals] == within
