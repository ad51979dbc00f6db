"""Keys on a real Redis, look-ups on a real PostgreSQL: claims, leases, lifetimes, lost scripts, one connection."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
import redis.asyncio as redis

from ingress.idempotency import Claim, Keys, Standing
from ingress.presence import Away
from ingress.queries import Payments
from ops.local.stack import Stack
from schemas.records import CommandType, PaymentCommand
from tests.integration import http_role

MINE, OTHERS = "a" * 64, "b" * 64
NEW = Claim(Standing.NEW, lease=0)


@pytest_asyncio.fixture(loop_scope="session")
async def keys(stack: Stack) -> AsyncIterator[Keys]:
    found = Keys(stack.redis_url, lease_s=30, remember_s=600)
    yield found
    await found.close()


@pytest_asyncio.fixture(loop_scope="session")
async def server(stack: Stack) -> AsyncIterator[redis.Redis]:
    found: redis.Redis = redis.from_url(stack.redis_url)
    yield found
    await found.aclose()


@pytest.fixture
def payment_id() -> str:
    return str(uuid.uuid4())


async def test_one_claims_and_the_others_wait_or_conflict(keys: Keys, payment_id: str) -> None:
    claims = await asyncio.gather(*(keys.claim(payment_id, MINE) for _ in range(300)))
    assert [claim.standing for claim in claims].count(Standing.NEW) == 1
    busy = [claim for claim in claims if claim.standing is Standing.BUSY]
    assert len(busy) == 299
    assert all(29_000 < claim.wait_ms <= 30_000 for claim in busy)
    assert (await keys.claim(payment_id, OTHERS)).standing is Standing.CONFLICT
    assert await keys.document(payment_id) is None


async def test_what_was_published_is_given_to_its_body_only(keys: Keys, payment_id: str) -> None:
    await keys.claim(payment_id, MINE)
    await keys.published(payment_id, MINE, b'{"x":"\xc3\xa9"}')
    assert await keys.claim(payment_id, MINE) == Claim(Standing.PUBLISHED, document=b'{"x":"\xc3\xa9"}')
    assert await keys.claim(payment_id, OTHERS) == Claim(Standing.CONFLICT)
    assert await keys.document(payment_id) == b'{"x":"\xc3\xa9"}'


async def test_a_release_frees_the_key_for_its_body(keys: Keys, payment_id: str) -> None:
    claim = await keys.claim(payment_id, MINE)
    await keys.release(payment_id, claim.lease)
    assert (await keys.claim(payment_id, OTHERS)).standing is Standing.CONFLICT
    assert (await keys.claim(payment_id, MINE)).standing is Standing.NEW


async def test_a_claim_that_redis_clock_has_left_in_the_future_holds_nobody(
    keys: Keys, server: redis.Redis, payment_id: str
) -> None:
    """Its process died, and then the clock was set back by an hour: the key is not busy for that long."""
    await keys.claim(payment_id, MINE)
    assert (await keys.look(payment_id, MINE)).standing is Standing.BUSY
    await server.hincrby(f"payment:{{{payment_id}}}", "lease_until_ms", 3_600_000)
    assert (await keys.look(payment_id, MINE)).standing is Standing.NEW
    assert (await keys.claim(payment_id, OTHERS)).standing is Standing.CONFLICT
    assert (await keys.claim(payment_id, MINE)).standing is Standing.NEW
    assert (await keys.claim(payment_id, MINE)).standing is Standing.BUSY


async def test_a_release_that_comes_late_frees_nobody_elses_claim(stack: Stack, payment_id: str) -> None:
    hasty = Keys(stack.redis_url, lease_s=0.05, remember_s=600)
    try:
        first = await hasty.claim(payment_id, MINE)
        async with asyncio.timeout(5):
            while (second := await hasty.claim(payment_id, MINE)).standing is not Standing.NEW:
                await asyncio.sleep(0.01)
        assert second.lease > first.lease
        patient = Keys(stack.redis_url, lease_s=30, remember_s=600)
        try:
            async with asyncio.timeout(5):
                while (third := await patient.claim(payment_id, MINE)).standing is not Standing.NEW:
                    await asyncio.sleep(0.01)
            await hasty.release(payment_id, second.lease)
            assert (await patient.claim(payment_id, MINE)).standing is Standing.BUSY
            await patient.published(payment_id, MINE, b"{}")
            await hasty.release(payment_id, third.lease)
            assert (await patient.claim(payment_id, MINE)).standing is Standing.PUBLISHED
        finally:
            await patient.close()
    finally:
        await hasty.close()


async def test_a_look_leaves_no_trace(keys: Keys, server: redis.Redis, payment_id: str) -> None:
    assert await keys.look(payment_id, MINE) == NEW
    await keys.release(payment_id, 5)
    assert await server.exists(f"payment:{{{payment_id}}}") == 0


async def test_no_key_lives_for_ever(keys: Keys, server: redis.Redis, payment_id: str) -> None:
    claim = await keys.claim(payment_id, MINE)
    assert 590_000 < await server.pttl(f"payment:{{{payment_id}}}") <= 600_000
    await server.flushall()
    await keys.release(payment_id, claim.lease)
    assert await server.exists(f"payment:{{{payment_id}}}") == 0
    await keys.published(payment_id, MINE, b"{}")
    assert 590_000 < await server.pttl(f"payment:{{{payment_id}}}") <= 600_000


async def test_lost_scripts_are_loaded_again_within_the_same_ask(keys: Keys, server: redis.Redis) -> None:
    await keys.ping()
    await server.script_flush()
    claims = await asyncio.gather(*(keys.claim(str(uuid.uuid4()), MINE) for _ in range(50)))
    assert {claim.standing for claim in claims} == {Standing.NEW}


async def test_a_burst_uses_one_connection(stack: Stack, server: redis.Redis) -> None:
    before = (await server.info("clients"))["connected_clients"]
    keys = Keys(stack.redis_url, lease_s=30, remember_s=600)
    await asyncio.gather(*(keys.claim(str(uuid.uuid4()), MINE) for _ in range(2000)))
    assert (await server.info("clients"))["connected_clients"] <= before + 1
    await keys.close()


async def test_a_wrong_password_is_an_absent_redis(stack: Stack) -> None:
    keys = Keys(stack.redis_url.replace("redis://:", "redis://:wrong"), lease_s=30, remember_s=600)
    with pytest.raises(Away):
        await keys.ping()
    await keys.close()


async def test_rows_are_found_by_id_many_at_once(stack: Stack) -> None:
    await http_role.prepare(stack)
    commands = [
        PaymentCommand(
            type=CommandType.CREATE, payment_id=str(uuid.uuid4()), merchant_id="m", idempotency_key=uuid.uuid4().hex,
            amount_minor=number + 1, currency="USD", payment_method="pm_approve",
        )
        for number in range(5)
    ]  # fmt: skip
    for command in commands:
        await http_role.store(stack, command, MINE)
    payments = Payments(stack.database_url)
    try:
        ids = [command.payment_id or "" for command in commands] + [str(uuid.uuid4()) for _ in range(600)]
        rows = await asyncio.gather(*(payments.find(payment_id, "m") for payment_id in ids))
        assert [row["amount_minor"] if row else None for row in rows] == [1, 2, 3, 4, 5, *[None] * 600]
        connection = await asyncpg.connect(stack.database_url)
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kifiya-ingress' AND pid <> $1"
        assert await connection.fetchval(count, connection.get_server_pid()) == 1
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kifiya-ingress'"
        )
        lost = payments._connection
        assert lost is not None
        async with asyncio.timeout(10):
            while not lost.is_closed():
                await asyncio.sleep(0.01)
        assert await payments.find(ids[0], "m") is not None
        await connection.close()
    finally:
        await payments.close()


async def test_the_look_up_cannot_write_and_uses_the_key(stack: Stack) -> None:
    await http_role.prepare(stack)
    payments = Payments(stack.database_url)
    try:
        await payments.ping()
        connection = payments._connection
        assert connection is not None
        await connection.execute("SET statement_timeout = 0")  # its 0.3 s are short for a plan on a busy machine
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("DELETE FROM payments")
        await connection.execute("SET enable_seqscan = off")
        plan = await connection.fetch(
            "EXPLAIN SELECT 1 FROM payments WHERE payment_id = ANY($1::uuid[])", [uuid.uuid4()]
        )
        assert "payments_pkey" in " ".join(row[0] for row in plan)
    finally:
        await payments.close()
