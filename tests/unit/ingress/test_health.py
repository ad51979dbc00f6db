"""Ready means: payments can be accepted now. What only answers repeats sooner makes degraded, not unready."""

from __future__ import annotations

import asyncio

import pytest

from ingress.health import Readiness
from tests.unit.ingress.fakes import World


@pytest.mark.parametrize(
    ("kafka", "redis", "postgres", "status", "missing", "degraded"),
    [
        (True, True, True, 200, [], []),
        (True, False, True, 200, [], ["redis"]),
        (True, False, False, 200, [], ["redis", "postgres"]),
        (False, True, True, 503, ["kafka"], []),
        (False, False, False, 503, ["kafka"], ["redis", "postgres"]),
    ],
)
async def test_ready_says_what_is_missing(
    kafka: bool, redis: bool, postgres: bool, status: int, missing: list[str], degraded: list[str]
) -> None:
    world = World()
    world.keys.away, world.payments.away = not redis, not postgres
    if not kafka:
        world.kafka_away()
    async with world.client() as client:
        answer = await client.get("/readyz")
        assert answer.status_code == status
        assert answer.json() == {"ready": kafka, "missing": missing, "degraded": degraded}
        assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_a_dependency_that_hangs_is_missing_and_asked_once_for_all() -> None:
    asked = 0

    async def hangs() -> None:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()

    readiness = Readiness(needed={"kafka": hangs}, wanted={"redis": hangs}, timeout_s=0.05)
    states = await asyncio.gather(*(readiness.state() for _ in range(20)))
    assert all(state == {"ready": False, "missing": ["kafka"], "degraded": ["redis"]} for state in states)
    assert asked == 2


async def test_what_stands_in_for_kafka_makes_it_degraded_only() -> None:
    async def there() -> None:
        pass

    async def away() -> None:
        raise OSError

    for stand_in, found in (
        (there, {"ready": True, "missing": [], "degraded": ["kafka"]}),
        (away, {"ready": False, "missing": ["kafka"], "degraded": []}),
    ):
        readiness = Readiness(needed={"kafka": away}, wanted={"redis": there}, instead={"kafka": stand_in})
        assert await readiness.state() == found
