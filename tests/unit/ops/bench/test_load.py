"""The load generator against a server of the test's own: what waits is late, not left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ops.bench.load import Load

ANSWER = b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def server(status: Callable[[int], int], delay_s: Callable[[int], float]) -> AsyncIterator[str]:
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                number, count = count, count + 1
                await asyncio.sleep(delay_s(number))
                if status(number) == 0:
                    return
                writer.write(ANSWER % status(number))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/payments"
    finally:
        listening.close()


async def loaded(url: str, connections: int) -> Load:
    load = Load(url)
    await load.connect(connections)
    return load


async def test_a_stalled_server_makes_all_that_was_due_meanwhile_late() -> None:
    async with server(lambda _: 201, lambda number: 0.5 if number == 20 else 0.0) as url:
        load = await loaded(url, 1)
        found = await load.open(200, 0.5)
        load.close()
    assert found["statuses"] == {"0": 0, "201": 100}
    assert found["p50_ms"] > 100  # a closed loop would have measured one slow request of a hundred
    assert 300 < found["max_ms"] < 2000


async def test_every_answer_is_counted_by_its_status() -> None:
    async with server(lambda number: 503 if number % 2 else 201, lambda _: 0.0) as url:
        load = await loaded(url, 4)
        found = await load.open(400, 0.25)
        load.close()
    assert found["statuses"] == {"0": 0, "201": 50, "503": 50}


async def test_a_broken_connection_is_a_request_without_an_answer() -> None:
    async with server(lambda number: 0 if number == 3 else 201, lambda _: 0.0) as url:
        load = await loaded(url, 2)
        found = await load.open(200, 0.1)
        load.close()
    assert found["statuses"] == {"0": 1, "201": 19}


async def test_a_closed_loop_keeps_its_connections_busy() -> None:
    async with server(lambda _: 201, lambda _: 0.01) as url:
        load = await loaded(url, 4)
        found = await load.closed(0.5)
        load.close()
    assert set(found["statuses"]) == {"201"}
    assert 100 < found["accepted_per_s"] < 410


async def test_a_wave_is_one_request_over_all_connections_and_tells_how_many_of_it_were_accepted() -> None:
    async with server(lambda number: 201 if number % 4 == 0 or number == 41 else 409, lambda _: 0.0) as url:
        load = await loaded(url, 4)
        found = await load.waves(12)
        load.close()
    assert found["made"] == {"1": 11, "2": 1}
    assert found["statuses"] == {"201": 13, "409": 35}
