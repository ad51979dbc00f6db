"""The provider's clock: a request arrives when its first byte does, whatever came before on its connection."""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import web

from ops.simulator.provider import Provider
from ops.simulator.server import Simulator

GAP_S = 0.3


def request(key: str) -> tuple[bytes, bytes]:
    body = json.dumps(
        {"reference": key, "amount_minor": 1, "currency": "USD", "merchant_id": "m", "payment_method": "pm_approve"}
    ).encode()
    head = f"POST /v1/charges HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode(), body


async def test_a_body_in_a_segment_of_its_own_is_not_the_arrival_of_the_next_request() -> None:
    provider = Provider(10, 1_000_000_000, time.monotonic_ns)
    runner = web.ServerRunner(Simulator(provider, 0).server())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
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
    finally:
        await runner.cleanup()
    first, second = (seen.arrived_ns for seen in provider.log)
    assert (second - first) / 1e9 > GAP_S
