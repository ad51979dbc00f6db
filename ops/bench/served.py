"""The ingress served for a bench: its tables, a merchant's key, the process, and load from a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ops import merchants
from ops.bench.load import DRAIN_S
from ops.bench.proc import processor_s
from ops.bench.rig import Bench, NotMeasured, answers, declare, environment, kafka_of, output, process
from ops.local.child import StartError
from ops.local.ports import free_port
from ops.local.stack import Stack, running
from schemas.api_key import SANDBOX_PEPPER, SCOPES, Mode

CLOSED_CONNECTIONS: Final = 64
_STARTING_S: Final = 30.0


async def migrate(stack: Stack) -> None:
    """Have the tables. Raises StartError."""
    migrating = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "sinks",
        "migrate",
        env=environment(stack, Path()),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await asyncio.wait_for(migrating.wait(), _STARTING_S)
    except TimeoutError:
        migrating.kill()
        raise StartError(f"not within {_STARTING_S:g} s: the tables of PostgreSQL") from None
    if migrating.returncode:
        raise StartError("the tables of PostgreSQL could not be made")


async def merchant(stack: Stack) -> str:
    """An API key of a merchant whose own limit is out of the way. Raises asyncpg's errors."""
    async with merchants.connected(stack.database_url) as db:
        await merchants.add(db, "bench", Mode.TEST, rate_limit="1000000/second")
        made = await merchants.create_key(db, SANDBOX_PEPPER.encode(), "bench", SCOPES)
    return made.key


@dataclass(slots=True)
class Server:
    """A server under load, and what was measured of it, a value each run."""

    url: str
    pid: int
    key: str
    opened: list[dict[str, Any]] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    processor_us: list[float] = field(default_factory=list)

    def of(self, name: str) -> list[float]:
        """What the open loop measured under this name."""
        return [run[name] for run in self.opened]


async def serving(servers: AsyncExitStack, bench: Bench, env: dict[str, str], module: str, key: str) -> Server:
    """Serve this module on a port of its own until the stack of contexts unwinds. Raises StartError."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [module] if module == "ingress" else [module, "--port", str(port)]

    async def probe() -> bool:
        return await answers(f"{url}/readyz")

    settings = {**env, "INGRESS_HOST": "127.0.0.1", "INGRESS_PORT": str(port)}
    found = await servers.enter_async_context(process(bench, module, arguments, settings, probe))
    return Server(f"{url}/v1/payments", found.pid or 0, key)


@asynccontextmanager
async def one_ingress(bench: Bench) -> AsyncIterator[tuple[Server, Stack]]:
    """An ingress over a stack of its own, for the block. Raises StartError."""
    with TemporaryDirectory(prefix="kifiya-bench-") as folder:
        async with running(bench.kind, overrides=False) as stack, AsyncExitStack() as servers:
            await declare(kafka_of(stack))
            await migrate(stack)
            key = await merchant(stack)
            yield await serving(servers, bench, environment(stack, Path(folder)), "ingress", key), stack


async def load(way: str, server: Server, seconds: float, *more: str) -> dict[str, Any]:
    """What ``ops.bench.load`` tells of so many seconds, ``open`` or ``closed``. Raises NotMeasured."""
    arguments = [
        "ops.bench.load",
        way,
        "--url",
        server.url,
        "--seconds",
        f"{seconds:g}",
        "--api-key",
        server.key,
        *more,
    ]
    return await output(arguments, seconds + DRAIN_S + _STARTING_S)


async def closed(server: Server, seconds: float) -> None:
    """As many as it takes. Raises NotMeasured where it refused any."""
    before = processor_s(server.pid)
    found = await load("closed", server, seconds, "--connections", str(CLOSED_CONNECTIONS))
    if set(found["statuses"]) - {"201"}:
        raise NotMeasured(f"some requests of the closed loop failed: {found['statuses']}")
    server.most.append(found["accepted_per_s"])
    server.processor_us.append(1e6 * (processor_s(server.pid) - before) / found["statuses"]["201"])
