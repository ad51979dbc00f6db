"""Bad days: each fault strikes under load, then nothing is lost, nothing charged twice, no second over the limit."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import redis.asyncio as redis

from ops.local import stack as local
from tests.e2e.gateway import Gateway, running, until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]
LIMIT = 50


async def _load(gateway: Gateway, count: int) -> list[str]:
    """Accepted payments, sent as fast as eight clients can."""
    gate = asyncio.Semaphore(8)

    async def one() -> str:
        async with gate:
            return await gateway.create(payment_method="pm_approve")

    return await asyncio.gather(*(one() for _ in range(count)))


async def _check(gateway: Gateway, ids: list[str], within_s: float = 90.0) -> None:
    states = await gateway.wait_final(ids, within_s)
    assert set(states.values()) == {"COMPLETED"}
    assert await gateway.charges(ids) == dict.fromkeys(ids, 1)
    assert await gateway.most_calls_in_a_second() <= LIMIT


@pytest.mark.parametrize(
    "role",
    ["intake", "dispatch", *(pytest.param(name, marks=pytest.mark.long) for name in ("ingress", "delay", "sink"))],
)
async def test_a_role_killed_under_load_loses_and_repeats_nothing(gateway: Gateway, role: str) -> None:
    loading = asyncio.create_task(_load(gateway, 200))
    for _ in range(2):
        await asyncio.sleep(1.0)
        old = await gateway.kill(role)

        async def restarted(old: int = old) -> bool:
            return bool((await gateway.status())["pids"].get(role) not in {old, None})

        await until(restarted, f"{role} is started again")
    await _check(gateway, await loading)


@pytest.mark.long
async def test_retries_survive_a_killed_delay(gateway: Gateway) -> None:
    ids = [await gateway.create(payment_method="pm_503_twice") for _ in range(4)]  # too few to open the breaker
    await gateway.kill("delay")
    await _check(gateway, ids)


async def test_sigterm_of_dispatch_while_its_lane_waits_loses_nothing(gateway: Gateway) -> None:
    ids = await _load(gateway, 150)
    await gateway.kill("dispatch", signal.SIGTERM)
    await _check(gateway, ids)


async def test_flushing_redis_never_lets_a_second_exceed_the_limit(gateway: Gateway) -> None:
    loading = asyncio.create_task(_load(gateway, 200))
    client = redis.from_url(gateway.redis)
    for _ in range(3):
        await asyncio.sleep(0.7)
        await client.flushall()
    await client.aclose()
    await _check(gateway, await loading)


@pytest.mark.long
async def test_charging_goes_on_while_postgresql_is_away() -> None:
    kind = os.environ.get("TEST_STACK", "embedded")
    lanes = '{"simulator": {"provider": "simulator", "limit": 50, "guard_ms": 250, "call_timeout_ms": 2000}}'
    async with (
        local.running("embedded", parts=frozenset({"postgres"})) as stack,
        running(kind, LANES=lanes, DATABASE_URL=stack.database_url) as gateway,
    ):
        known = await gateway.create()  # the ingress knows the API key from now on, for API_KEY_GRACE_S
        stack.processes["postgres"].kill()
        ids = [known] + [await gateway.create() for _ in range(20)]

        async def charged() -> bool:
            return sum((await gateway.charges(ids)).values()) == len(ids)

        await until(charged, "all are charged without PostgreSQL")
        await asyncio.sleep(30)
        await stack.processes["postgres"].restart()
        await _check(gateway, ids, 60)
