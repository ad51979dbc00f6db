"""Ingress beside FastAPI endpoints: at 1,000 a second one that does nothing; at most one that only validates, too."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ops import merchants
from ops.bench.figures import Aim, Figure, ratios
from ops.bench.load import DRAIN_S
from ops.bench.proc import processor_s
from ops.bench.rig import Bench, NotMeasured, answers, declare, environment, kafka_of, output, process
from ops.local.child import StartError
from ops.local.ports import free_port
from ops.local.stack import Stack, running
from schemas.api_key import SANDBOX_PEPPER, SCOPES, Mode

NAME: Final = "ingress"
RATE: Final = 1000
CLOSED_CONNECTIONS: Final = 64
_STARTING_S: Final = 30.0


async def measure(bench: Bench) -> list[Figure]:
    """Both servers up, loaded in turns."""
    with TemporaryDirectory(prefix="kifiya-bench-") as folder:
        async with running(bench.kind, overrides=False) as stack:
            await declare(kafka_of(stack))
            await migrate(stack)
            key = await merchant(stack)
            async with AsyncExitStack() as servers:
                ours = await _server(servers, bench, environment(stack, Path(folder)), "ingress", key)
                peer = await _server(servers, bench, environment(stack, Path(folder)), "ops.bench.nothing", key)
                validating = _Server(peer.url.replace("/v1/payments", "/validated"), peer.pid, key)
                return await _turns(bench, ours, peer, validating)


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
class _Server:
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


async def _server(servers: AsyncExitStack, bench: Bench, env: dict[str, str], module: str, key: str) -> _Server:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [module] if module == "ingress" else [module, "--port", str(port)]

    async def probe() -> bool:
        return await answers(f"{url}/readyz")

    settings = {**env, "INGRESS_HOST": "127.0.0.1", "INGRESS_PORT": str(port)}
    found = await servers.enter_async_context(process(bench, module, arguments, settings, probe))
    return _Server(f"{url}/v1/payments", found.pid or 0, key)


async def _load(way: str, server: _Server, seconds: float, *more: str) -> dict[str, Any]:
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


async def _turns(bench: Bench, ours: _Server, peer: _Server, validating: _Server) -> list[Figure]:
    seconds = bench.size(10, 3)
    for server in (ours, peer, validating):  # the broker and its compiler warm up, too
        await _load("closed", server, bench.size(5, 2), "--connections", str(CLOSED_CONNECTIONS))
    for run in range(bench.runs):
        order = (ours, validating, peer) if run % 2 == 0 else (peer, validating, ours)
        for server in (each for each in order if each is not validating):
            server.opened.append(await _load("open", server, seconds, "--rate", str(RATE)))
        for server in order:
            await _closed(server, seconds)
        bench.say(
            f"ingress run {run + 1}: at {RATE}/s {ours.opened[-1]['accepted_per_s']:.0f} accepted/s "
            f"{ours.opened[-1]['statuses']}, p99 {ours.opened[-1]['p99_ms']:.1f} ms beside "
            f"{peer.opened[-1]['p99_ms']:.1f}; at most {ours.most[-1]:.0f}/s beside {validating.most[-1]:.0f}/s of "
            f"only validating and {peer.most[-1]:.0f}/s of nothing"
        )
    return _figures(ours, peer, validating)


async def _closed(server: _Server, seconds: float) -> None:
    """As many as it takes. Raises NotMeasured where it refused any."""
    before = processor_s(server.pid)
    found = await _load("closed", server, seconds, "--connections", str(CLOSED_CONNECTIONS))
    if set(found["statuses"]) - {"201"}:
        raise NotMeasured(f"some requests of the closed loop failed: {found['statuses']}")
    server.most.append(found["accepted_per_s"])
    server.processor_us.append(1e6 * (processor_s(server.pid) - before) / found["statuses"]["201"])


def _figures(ours: _Server, peer: _Server, validating: _Server) -> list[Figure]:
    refused = [sum(count for status, count in run["statuses"].items() if status != "201") for run in ours.opened]
    return [
        # The last answer comes after the last request: the rate of the answers stays a little below.
        Figure(NAME, "accepted at 1,000/s offered", ours.of("accepted_per_s"), "/s", Aim(0.99 * RATE, at_least=True)),
        Figure(NAME, "not accepted at 1,000/s", refused, "requests", Aim(0), worst=True),
        Figure(NAME, "p50 from the due time", ours.of("p50_ms"), "ms"),
        Figure(NAME, "p99 from the due time", ours.of("p99_ms"), "ms", Aim(20, at_least=False)),
        Figure(NAME, "  p99 of the peer, which does nothing", peer.of("p99_ms"), "ms"),
        Figure(NAME, "  p99 of the generator's own lateness", ours.of("late_p99_ms"), "ms"),
        Figure(NAME, "most one worker accepts", ours.most, "/s", Aim(RATE, at_least=True)),
        Figure(NAME, "  most of a peer that only validates", validating.most, "/s"),
        Figure(NAME, "  ours of what only validates", ratios(ours.most, validating.most), "x", Aim(0.5, at_least=True)),
        Figure(NAME, "  most of a peer that does nothing", peer.most, "/s"),
        Figure(NAME, "  ours of what does nothing", ratios(ours.most, peer.most), "x"),
        Figure(NAME, "processor time of one request", ours.processor_us, "us"),
        Figure(NAME, "  of one that is only validated", validating.processor_us, "us"),
        Figure(NAME, "  of one that does nothing", peer.processor_us, "us"),
    ]
