"""The app over memory, events included, on a port of its own: ``python -m tests.unit.ingress.served`` says where."""

from __future__ import annotations

import socket
import sys
from typing import cast

import uvicorn
from fastapi import FastAPI

from ingress import asyncapi_page, events
from ingress.catchup import Readers
from ingress.feed import Bounds, Feed
from ingress.recent import Recent
from ingress.tail import Tail
from ingress.tenants import Tenants
from ingress.wire import BoundedProtocol
from tests.unit.ingress.fakes import LANES, PEPPER, World
from tests.unit.ingress.test_events import event
from tests.unit.ingress.test_stream import MemoryReaders, MemoryTail


def app() -> FastAPI:
    """All that is served in production, over a world in memory."""
    world = World()
    world.results.away = True  # or a create that prefers to wait would, for an end that never comes
    recent = Recent([0, 0])
    for offset in range(5):
        recent.add(0, offset, "shop", event("shop", version=offset + 1))

    async def ping() -> None:
        pass

    feed = Feed(cast("Tail", MemoryTail(recent)), cast("Readers", MemoryReaders()), ping)
    again = Tenants(world.keyring, PEPPER, grace_s=900).again
    found = world.app()
    found.include_router(events.routes(events.Live(feed, Bounds(10, 10), again, 0.2)))
    asyncapi_page.install(found, LANES)
    return found


def main() -> None:
    """Serve until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        app(), http=BoundedProtocol, log_config=None, access_log=False, server_header=False, ws="none", lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
