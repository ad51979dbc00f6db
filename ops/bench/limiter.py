"""The limiter: how much of what a provider allows one, three and eight workers use; the most calls in any second.

Real dispatch processes on a backlog, a real Valkey; the simulator notes when each request's first byte arrives.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx2

from ops.bench import payments
from ops.bench.figures import SECOND_NS, Aim, Figure, shares_used
from ops.bench.rig import LANE, Bench, answers, declare, environment, kafka_of, process, role, until
from ops.bench.served import migrate
from ops.local.ports import free_port
from ops.local.stack import Stack, running
from ops.verify import windows

NAME: Final = "limiter"
LIMIT: Final = 2
WORKERS: Final = {1: 60.0, 3: 120.0, 8: 60.0}
"""How many workers share the lane, and for how many seconds they are watched."""
SETTLE_S: Final = 5.0
FLOWING_S: Final = 30.0
_UNUSED: Final = re.compile(r"^kifiya_permits_(?:not_used|discarded)_total\{[^}]*\} ([0-9.e+]+)", re.MULTILINE)


async def measure(bench: Bench) -> list[Figure]:
    """For each number of workers one stretch of time; the joining of the workers is watched, too."""
    return [figure for workers in WORKERS for figure in await _measure(bench, workers)]


async def _measure(bench: Bench, workers: int) -> list[Figure]:
    seconds = WORKERS[workers] * bench.size(6, 1) / 6
    with TemporaryDirectory(prefix="kifiya-bench-") as folder:
        async with running(bench.kind, overrides=False) as stack:
            await declare(kafka_of(stack))
            await migrate(stack)
            backlog = int(LIMIT * (seconds + FLOWING_S + SETTLE_S + 60))
            await payments.fill(kafka_of(stack), payments.task_of, "limiter", backlog)
            async with AsyncExitStack() as parts:
                url = await _simulator(parts, bench)
                metrics = await _workers(parts, bench, stack, Path(folder), url, workers)
                async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
                    calls, begin_ns = await _watch(http, url, seconds)
                    unused = await _unused(http, metrics)
    return _figures(bench, workers, calls, begin_ns, seconds, unused)


async def _simulator(parts: AsyncExitStack, bench: Bench) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    async def probe() -> bool:
        return await answers(f"{url}/healthz")

    arguments = ["ops.simulator", "--port", str(port), "--limit", str(LIMIT)]
    await parts.enter_async_context(process(bench, "simulator", arguments, environment(Stack(), Path()), probe))
    return url


async def _workers(  # noqa: PLR0913, PLR0917 - one measurement
    parts: AsyncExitStack, bench: Bench, stack: Stack, folder: Path, url: str, workers: int
) -> list[str]:
    """Workers with a data folder each; the URLs of their metrics."""
    lanes = json.dumps({LANE: {"provider": "simulator", "limit": LIMIT, "url": url}})
    found = []
    for number in range(workers):
        data = folder / str(number)
        data.mkdir()
        worker = role(bench, stack, data, "streams", "dispatch", "--lane", LANE, LANES=lanes)
        found.append((await parts.enter_async_context(worker)).metrics)
    return found


async def _calls(http: httpx2.AsyncClient, url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await http.get(f"{url}/observed")).json()["requests"]
    return found


async def _watch(http: httpx2.AsyncClient, url: str, seconds: float) -> tuple[list[dict[str, Any]], int]:
    """All calls that the simulator has seen, and when the time began."""

    async def flowing() -> bool:
        return bool(await _calls(http, url))

    await until(flowing, "the first call of the workers", FLOWING_S)
    await asyncio.sleep(SETTLE_S)
    begin_ns = time.monotonic_ns()  # the simulator's clock: it runs on this machine
    await asyncio.sleep(seconds + 2)
    return await _calls(http, url), begin_ns


async def _unused(http: httpx2.AsyncClient, metrics: list[str]) -> int:
    """Permits that the workers were granted and did not use, by their own count."""
    texts = [(await http.get(url)).text for url in metrics]
    return sum(int(float(count)) for text in texts for count in _UNUSED.findall(text))


def _figures(  # noqa: PLR0913, PLR0917 - one measurement
    bench: Bench, workers: int, calls: list[dict[str, Any]], begin_ns: int, seconds: float, unused: int
) -> list[Figure]:
    arrivals = [call["arrived_ns"] for call in calls]
    end_ns = begin_ns + int(seconds * 1e9)
    used = [100 * share for share in shares_used(arrivals, begin_ns, end_ns, 1, LIMIT)]
    slices = [100 * share for share in shares_used(arrivals, begin_ns, end_ns, bench.runs, LIMIT)]
    refused = sum(call["status"] == 429 for call in calls)  # noqa: PLR2004
    return [
        Figure(NAME, f"used of {LIMIT}/s, {seconds:g} s, workers: {workers}", used, "%", Aim(95, at_least=True)),
        Figure(NAME, f"  in each of {bench.runs} slices of the time", slices, "%"),
        Figure(NAME, f"  permits not used, of {len(calls) + unused}", [unused], ""),
        Figure(NAME, f"most calls in any second of {len(calls)}", [windows.most(arrivals, SECOND_NS)], "", Aim(LIMIT)),
        Figure(NAME, "  calls that the provider refused", [refused], "", Aim(0)),
    ]
