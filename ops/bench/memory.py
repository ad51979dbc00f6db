"""Memory of each role with nothing queued, and with 100,000 payments waiting for a provider that allows 2/s."""

from __future__ import annotations

import asyncio
import statistics
from typing import Final

import asyncpg
import httpx2

from ops.bench import payments
from ops.bench.figures import Aim, Figure
from ops.bench.idle import create_one
from ops.bench.proc import resident_bytes
from ops.bench.rig import Bench, NotMeasured, kafka_of, until
from ops.local.gateway import ROLES, Gateway, gateway
from schemas import topics

NAME: Final = "memory"
MOST_MB: Final = 20.0
WARM_UP: Final = 10
SETTLE_S: Final = 5.0
_MB: Final = 1e6
_SAMPLES: Final = 3
_PER_PAYMENT_S: Final = 0.005
"""Patience for each payment queued: intake takes a tenth of it."""


async def measure(bench: Bench) -> list[Figure]:
    """A look after a few payments; another once as many are queued, and intake and sink are done with them."""
    count = bench.size(100_000, 10_000)
    async with gateway(bench.kind, log=bench.log) as found:
        await _warm_up(found)
        idle = await _sizes(found)
        await payments.fill(kafka_of(found.stack), payments.command_of, "memory", count)
        await _queued(found, count)
        full = await _sizes(found)
    bench.say(", ".join(f"{role} {idle[role] / _MB:.0f} -> {full[role] / _MB:.0f} MB" for role in ROLES))
    figures = []
    for role in ROLES:
        more = (full[role] - idle[role]) / _MB
        name = f"{role}: {idle[role] / _MB:.0f} MB, more with {count:,} queued"
        figures.append(Figure(NAME, name, [more], "MB", None if role == "intake" else Aim(MOST_MB, strict=True)))
        if role == "intake":
            figures.append(Figure(NAME, "  per remembered key", [(full[role] - idle[role]) / count], "bytes"))
    return figures


async def _warm_up(found: Gateway) -> None:
    database = await asyncpg.connect(found.stack.database_url, timeout=5, command_timeout=10)
    try:
        headers = {"Authorization": f"Bearer {found.api_key}"}
        async with httpx2.AsyncClient(base_url=found.ingress, timeout=10, trust_env=False, headers=headers) as http:
            for _ in range(WARM_UP):
                await create_one(http, database)
    finally:
        await database.close(timeout=5)


async def _queued(found: Gateway, count: int) -> None:
    """Wait until intake has routed all and the sink has written all of it. Raises NotMeasured."""
    kafka = kafka_of(found.stack)
    within_s = 60 + count * _PER_PAYMENT_S

    async def routed() -> bool:
        return await payments.caught_up(kafka, topics.INTAKE_APP, topics.COMMANDS)

    await until(routed, f"{count} commands routed by intake", within_s, 1.0)
    database = await asyncpg.connect(found.stack.database_url, timeout=5, command_timeout=30)
    try:

        async def written() -> bool:
            rows: int = await database.fetchval(
                "SELECT count(*) FROM payments WHERE merchant_id = $1", payments.MERCHANT
            )
            return rows >= count

        await until(written, f"{count} payments written by the sink", within_s, 1.0)
    finally:
        await database.close(timeout=5)


async def _sizes(found: Gateway) -> dict[str, float]:
    """Resident bytes of each role, the median of a few looks. Raises NotMeasured where one was started anew."""
    pids = found.supervisor.pids
    await asyncio.sleep(SETTLE_S)
    looks: list[dict[str, int]] = []
    for _ in range(_SAMPLES):
        looks.append({role: resident_bytes(pids[role]) for role in ROLES})
        await asyncio.sleep(1)
    if found.supervisor.pids != pids:
        raise NotMeasured("a role died meanwhile, its log says why")
    return {role: statistics.median(look[role] for look in looks) for role in ROLES}
