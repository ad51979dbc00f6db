"""One payment at a time through an idle gateway: from HTTP's 201 until the final row can be read in PostgreSQL."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Final

import asyncpg
import httpx2

from ops.bench.figures import Figure, percentile
from ops.bench.rig import Bench, NotMeasured
from ops.local.gateway import gateway

NAME: Final = "idle"
WARM_UP: Final = 3
APART_S: Final = 0.7
"""From one payment to the next: the third call within a second would wait for its permit."""
FINAL_S: Final = 30.0
LOOK_S: Final = 0.003
_BODY: Final = {"amount": "12.50", "currency": "USD", "payment_method": "pm_approve"}


async def measure(bench: Bench) -> list[Figure]:
    """So many payments in each run, through one gateway as `kifiya up` starts it."""
    payments = bench.size(30, max(10, -(-30 // bench.runs)))
    runs: list[list[float]] = []
    accepts: list[float] = []
    async with gateway(bench.kind, log=bench.log) as found:
        database = await asyncpg.connect(found.stack.database_url, timeout=5, command_timeout=10)
        try:
            headers = {"Authorization": f"Bearer {found.api_key}"}
            async with httpx2.AsyncClient(base_url=found.ingress, timeout=10, trust_env=False, headers=headers) as http:
                for _ in range(WARM_UP):
                    await create_one(http, database)
                for run in range(bench.runs):
                    taken = [await create_one(http, database) for _ in range(payments)]
                    runs.append([final_s * 1000 for _, final_s in taken])
                    accepts += [accept_s * 1000 for accept_s, _ in taken]
                    bench.say(f"idle run {run + 1}: median {percentile(runs[-1], 50):.0f} ms")
        finally:
            await database.close(timeout=5)
    return [
        Figure(NAME, "median, 201 to final row", [percentile(run, 50) for run in runs], "ms"),
        Figure(NAME, f"p99 of all {sum(map(len, runs))}", [percentile([one for run in runs for one in run], 99)], "ms"),
        Figure(NAME, "  median of the POST itself", [percentile(accepts, 50)], "ms"),
    ]


async def create_one(http: httpx2.AsyncClient, database: asyncpg.Connection) -> tuple[float, float]:
    """Seconds that the POST took, and seconds from its answer to the final row. Raises NotMeasured."""
    began = time.monotonic()
    answer = await http.post("/v1/payments", json=_BODY, headers={"Idempotency-Key": uuid.uuid4().hex})
    accepted = time.monotonic()
    if answer.status_code != 201:  # noqa: PLR2004
        raise NotMeasured(f"ingress answered {answer.status_code} instead of 201")
    payment_id = answer.json()["payment_id"]
    while True:
        state = await database.fetchval("SELECT state FROM payments WHERE payment_id = $1", payment_id)
        now = time.monotonic()
        if state == "COMPLETED":
            break
        if now - accepted > FINAL_S:
            raise NotMeasured(f"not within {FINAL_S:g} s: the final row of a payment (it is {state})")
        await asyncio.sleep(LOOK_S)
    await asyncio.sleep(max(0.0, began + APART_S - time.monotonic()))
    return accepted - began, now - accepted
