"""Ingress beside a FastAPI endpoint that does nothing: 1,000 payments a second, and as many as one worker can."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ops.bench.figures import Aim, Figure, ratios
from ops.bench.load import DRAIN_S
from ops.bench.rig import Bench, NotMeasured, answers, declare, environment, kafka_of, output, process
from ops.local.child import StartError
from ops.local.ports import free_port
from ops.local.stack import Stack, running

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
            async with AsyncExitStack() as servers:
                ours = await _server(servers, bench, environment(stack, Path(folder)), "ingress")
                peer = await _server(servers, bench, environment(stack, Path(folder)), "ops.bench.nothing")
                return await _turns(bench, ours, peer)


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


async def _server(servers: AsyncExitStack, bench: Bench, env: dict[str, str], module: str) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [module] if module == "ingress" else [module, "--port", str(port)]

    async def probe() -> bool:
        return await answers(f"{url}/readyz")

    settings = {**env, "INGRESS_HOST": "127.0.0.1", "INGRESS_PORT": str(port)}
    await servers.enter_async_context(process(bench, module, arguments, settings, probe))
    return f"{url}/v1/payments"


async def _load(way: str, url: str, seconds: float, *more: str) -> dict[str, Any]:
    arguments = ["ops.bench.load", way, "--url", url, "--seconds", f"{seconds:g}", *more]
    return await output(arguments, seconds + DRAIN_S + _STARTING_S)


async def _turns(bench: Bench, ours: str, peer: str) -> list[Figure]:
    seconds = bench.size(10, 3)
    opened: dict[str, list[dict[str, Any]]] = {ours: [], peer: []}
    closed: dict[str, list[float]] = {ours: [], peer: []}
    for url in (ours, peer):  # code paths and connections warm up
        await _load("closed", url, 1, "--connections", "8")
    for run in range(bench.runs):
        for url in (ours, peer) if run % 2 == 0 else (peer, ours):
            opened[url].append(await _load("open", url, seconds, "--rate", str(RATE)))
        for url in (ours, peer) if run % 2 == 0 else (peer, ours):
            found = await _load("closed", url, seconds, "--connections", str(CLOSED_CONNECTIONS))
            if set(found["statuses"]) - {"201"}:
                raise NotMeasured(f"some requests of the closed loop failed: {found['statuses']}")
            closed[url].append(found["accepted_per_s"])
        bench.say(
            f"ingress run {run + 1}: at {RATE}/s {opened[ours][-1]['accepted_per_s']:.0f} accepted/s "
            f"{opened[ours][-1]['statuses']}, p99 {opened[ours][-1]['p99_ms']:.1f} ms beside "
            f"{opened[peer][-1]['p99_ms']:.1f}; at most {closed[ours][-1]:.0f}/s beside {closed[peer][-1]:.0f}/s"
        )
    return _figures(opened[ours], opened[peer], closed[ours], closed[peer])


def _figures(
    ours: list[dict[str, Any]], peer: list[dict[str, Any]], most: list[float], peer_most: list[float]
) -> list[Figure]:
    def of(found: list[dict[str, Any]], name: str) -> list[float]:
        return [run[name] for run in found]

    refused = [sum(count for status, count in run["statuses"].items() if status != "201") for run in ours]
    return [
        # The last answer comes after the last request: the rate of the answers stays a little below.
        Figure(NAME, "accepted at 1,000/s offered", of(ours, "accepted_per_s"), "/s", Aim(0.99 * RATE, at_least=True)),
        Figure(NAME, "not accepted at 1,000/s", refused, "requests", Aim(0), worst=True),
        Figure(NAME, "p50 from the due time", of(ours, "p50_ms"), "ms"),
        Figure(NAME, "p99 from the due time", of(ours, "p99_ms"), "ms"),
        Figure(NAME, "  p99 of the peer, which does nothing", of(peer, "p99_ms"), "ms"),
        Figure(NAME, "  p99 of the generator's own lateness", of(ours, "late_p99_ms"), "ms"),
        Figure(NAME, "most one worker accepts", most, "/s", Aim(RATE, at_least=True)),
        Figure(NAME, "  most of the peer", peer_most, "/s"),
        Figure(NAME, "  ours of the peer's", ratios(most, peer_most), "x"),
    ]
