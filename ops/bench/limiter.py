"""The limiter: how much of what a provider allows three workers use, and the most calls it ever sees in a second.

Real dispatch processes on a backlog, a real Valkey; the simulator notes when each request's first byte arrives.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx2

from ops.bench import payments
from ops.bench.figures import Aim, Figure, most_in_a_second, shares_used
from ops.bench.rig import LANE, Bench, NotMeasured, answers, declare, environment, kafka_of, process, role, until
from ops.local.ports import free_port
from ops.local.stack import Stack, running

NAME: Final = "limiter"
LIMIT: Final = 2
WORKERS: Final = 3
SETTLE_S: Final = 5.0
FLOWING_S: Final = 30.0


async def measure(bench: Bench) -> list[Figure]:
    """One stretch of time, cut into as many slices as there are runs; the joining of the workers is watched, too."""
    seconds = bench.size(120, 20)
    with TemporaryDirectory(prefix="kifiya-bench-") as folder:
        async with running(bench.kind, parts=frozenset({"kafka", "redis"}), overrides=False) as stack:
            await declare(kafka_of(stack))
            backlog = int(LIMIT * (seconds + FLOWING_S + SETTLE_S + 60))
            await payments.fill(kafka_of(stack), payments.task_of, "limiter", backlog)
            async with AsyncExitStack() as parts:
                url = await _simulator(parts, bench)
                await _workers(parts, bench, stack, Path(folder), url)
                return await _watch(bench, url, seconds)


async def _simulator(parts: AsyncExitStack, bench: Bench) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    async def probe() -> bool:
        return await answers(f"{url}/healthz")

    arguments = ["ops.simulator", "--port", str(port), "--limit", str(LIMIT)]
    await parts.enter_async_context(process(bench, "simulator", arguments, environment(Stack(), Path()), probe))
    return url


async def _workers(parts: AsyncExitStack, bench: Bench, stack: Stack, folder: Path, url: str) -> None:
    lanes = json.dumps({LANE: {"provider": "simulator", "limit": LIMIT, "url": url}})
    for number in range(WORKERS):
        data = folder / str(number)
        data.mkdir()
        await parts.enter_async_context(role(bench, stack, data, "streams", "dispatch", "--lane", LANE, LANES=lanes))


async def _calls(http: httpx2.AsyncClient, url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await http.get(f"{url}/observed")).json()["requests"]
    return found


async def _watch(bench: Bench, url: str, seconds: float) -> list[Figure]:
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:

        async def flowing() -> bool:
            return bool(await _calls(http, url))

        await until(flowing, "the first call of the workers", FLOWING_S)
        await asyncio.sleep(SETTLE_S)
        begin_ns = time.monotonic_ns()  # the simulator's clock: it runs on this machine
        await asyncio.sleep(seconds + 2)
        calls = await _calls(http, url)
    arrivals = [call["arrived_ns"] for call in calls]
    end_ns = begin_ns + int(seconds * 1e9)
    if not any(begin_ns <= at < end_ns for at in arrivals):
        raise NotMeasured(f"not within {seconds:g} s: a call of the workers")
    shares = [100 * share for share in shares_used(arrivals, begin_ns, end_ns, bench.runs, LIMIT)]
    refused = sum(call["status"] == 429 for call in calls)  # noqa: PLR2004
    bench.say(f"limiter: {len(calls)} calls, shares {', '.join(f'{share:.1f} %' for share in shares)}")
    return [
        Figure(NAME, f"used of 2/s, {WORKERS} workers, {seconds:g} s", shares, "%", Aim(95, at_least=True)),
        Figure(NAME, f"most calls in any second of {len(calls)}", [most_in_a_second(arrivals)], "", Aim(LIMIT)),
        Figure(NAME, "calls that the provider refused", [refused], "", Aim(0)),
    ]
