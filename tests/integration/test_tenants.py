"""API keys and row-level security on real servers: whose a request is, and that nobody meets what is another's."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from ops import merchants
from ops.kafka.clients import KafkaSettings, Message, Publisher
from ops.local.stack import Stack
from schemas import codec, topics
from schemas import command as commands
from schemas.api_key import SCOPES, Mode
from schemas.records import EventType, PaymentCommand, PaymentEvent, State
from tests.integration import http_role
from tests.integration.http_role import PEPPER, Ingress, key_of, until

PROMPT_S = 2.0
"""Well under what is believed without a word from PostgreSQL (``FRESH_S``)."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def role(stack: Stack) -> AsyncIterator[Ingress]:
    await http_role.prepare(stack)
    async with http_role.ingress(http_role.environment(stack)) as found:
        await found.well()
        yield found


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def event_of(command: PaymentCommand) -> Message:
    """The first event of a payment, as the stream tells it."""
    event = PaymentEvent(
        type=EventType.STATE_CHANGED, version=1, state=State.PENDING, payment_id=command.payment_id or "",
        merchant_id=command.merchant_id or "", idempotency_key=command.idempotency_key or "", fingerprint="ab" * 32,
        amount_minor=1250, currency="USD", payment_method="pm_approve", lane=http_role.LANE, accepted_at_ms=0, at_ms=1,
    )  # fmt: skip
    return Message(topics.EVENTS, (command.payment_id or "").encode(), codec.encode(event))


async def test_a_merchant_meets_nothing_of_another(stack: Stack, role: Ingress) -> None:
    await role.become()
    mine, path = role.merchant, (await role.post("order-1", metadata={"order": "1"})).headers["location"]
    [command] = await http_role.published(stack, mine)
    stranger = bearer(await key_of(stack.database_url, f"{mine}-2"))
    for stored in (False, True):  # as Redis knows it, then as PostgreSQL does
        if stored:
            await http_role.store(stack, command, commands.fingerprint(command), state="PENDING")
        for method, way in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            assert (await role.http.request(method, path + way)).is_success
            theirs = await role.http.request(method, path + way, headers=stranger)
            none = await role.http.request(method, f"/v1/payments/{uuid.uuid4()}{way}", headers=stranger)
            assert (theirs.status_code, theirs.content) == (404, none.content)
    listed = await role.http.get("/v1/payments", params={"metadata": "order=1"})
    assert [each["payment_id"] for each in listed.json()["payments"]] == [command.payment_id]
    listed = await role.http.get("/v1/payments", params={"metadata": "order=1"}, headers=stranger)
    assert listed.json()["payments"] == []
    theirs = await role.http.post(
        "/v1/payments", json=role.body(merchant_id=mine), headers={**stranger, "Idempotency-Key": "order-1"}
    )
    assert (theirs.status_code, theirs.json()["errors"][0]["field"]) == (422, "merchant_id")
    async with Publisher(KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect)) as publisher:
        await publisher.publish([event_of(command)])

    async def told() -> bool:
        answer = (await role.http.get("/v1/events?after=beginning")).json()
        return [each["payment_id"] for each in answer["events"]] == [command.payment_id]

    await until(told, "its merchant hears of the event")
    heard = (await role.http.get("/v1/events?after=beginning", headers=stranger)).json()
    assert (heard["events"], heard["more"]) == ([], False)


async def test_postgresql_shows_the_ingress_the_named_merchants_rows_only(stack: Stack, role: Ingress) -> None:
    """What the ingress connects as, with queries that forgot whose payments they are about; '_' is no wildcard."""
    await role.become()
    name = f"a_{uuid.uuid4().hex[:12]}"
    for merchant in (name, name.replace("_", "x")):
        fields = {**role.body(metadata={"order": "1"}), "merchant_id": merchant}
        command = commands.create(fields, idempotency_key="k", lanes=frozenset(), accepted_at_ms=1)
        await http_role.store(stack, command, commands.fingerprint(command))
    db = await asyncpg.connect(stack.database_url, server_settings={"role": "kifiya_ingress"})
    try:
        for named, seen in ((None, []), ("", []), ("%", []), (name, [name]), (name.upper(), [])):
            async with db.transaction():
                await db.execute("SELECT set_config('kifiya.merchants', $1, true)", named)
                for table in ("payments", "payment_terms"):
                    rows = await db.fetch(f"SELECT DISTINCT merchant_id FROM {table}")
                    assert [row["merchant_id"] for row in rows] == seen, (table, named)
        assert await db.fetch("SELECT FROM payments") == []
        assert await db.fetch("SELECT FROM payment_events") == []
        for forbidden in (
            "SELECT FROM outbox", "SELECT * FROM dead_letters", "DELETE FROM payments", "DELETE FROM api_keys",
            "INSERT INTO outbox (payment_id, value, headers) VALUES (gen_random_uuid(), '', '[]')",
            "SELECT * FROM merchants",
        ):  # fmt: skip
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await db.execute(forbidden)
    finally:
        await db.close()


async def test_no_table_of_merchants_rows_is_without_forced_row_level_security(stack: Stack, role: Ingress) -> None:
    assert role.merchant
    db = await asyncpg.connect(stack.database_url)
    try:
        open_ = await db.fetch(
            """SELECT DISTINCT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
               WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                 AND attname IN ('merchant_id', 'payment_id')
                 AND relname NOT IN ('merchants', 'api_keys') AND NOT (relrowsecurity AND relforcerowsecurity)"""
        )
        views = await db.fetchval("SELECT reloptions FROM pg_class WHERE relname = 'payment_status'")
    finally:
        await db.close()
    assert [row["relname"] for row in open_] == []
    assert views == ["security_invoker=true"]


async def test_a_key_is_refused_as_soon_as_it_is_revoked(stack: Stack, role: Ingress) -> None:
    key = await key_of(stack.database_url, role.merchant)
    assert (await role.http.get("/v1/payments", headers=bearer(key))).status_code == 200
    async with merchants.connected(stack.database_url) as db:
        assert await merchants.revoke_key(db, key.partition(".")[0].rpartition("_")[2])

    async def refused() -> bool:
        answer = await role.http.get("/v1/payments", headers=bearer(key))
        return (answer.status_code, answer.json().get("code")) == (401, "invalid-api-key")

    await until(refused, "the key is refused", PROMPT_S)


async def test_a_rotated_key_works_beside_its_successor_until_the_overlap_ends(stack: Stack, role: Ingress) -> None:
    old = await key_of(stack.database_url, role.merchant, "payments:read")
    began = time.monotonic()
    async with merchants.connected(stack.database_url) as db:
        made = await merchants.rotate_key(db, PEPPER.encode(), old.partition(".")[0].rpartition("_")[2], overlap_s=1.5)
    assert made.scopes == ("payments:read",)
    for key in (old, made.key):
        assert (await role.http.get("/v1/payments", headers=bearer(key))).status_code == 200

    async def refused() -> bool:
        return (await role.http.get("/v1/payments", headers=bearer(old))).status_code == 401

    await until(refused, "the old key has ended", 1.5 + PROMPT_S)
    assert time.monotonic() - began >= 1.5
    assert (await role.http.get("/v1/payments", headers=bearer(made.key))).status_code == 200


async def test_a_key_of_another_mode_reaches_nothing_of_this_one(stack: Stack, role: Ingress) -> None:
    merchant = f"live-{uuid.uuid4().hex[:12]}"
    async with merchants.connected(stack.database_url) as db:
        await merchants.add(db, merchant, Mode.LIVE)
        live = (await merchants.create_key(db, PEPPER.encode(), merchant, SCOPES)).key
        with pytest.raises(merchants.Refused, match="live merchant"):
            await merchants.create_key(db, PEPPER.encode(), merchant, SCOPES, mode=Mode.TEST)
        with pytest.raises(asyncpg.ForeignKeyViolationError):  # not by hand either
            await db.execute("UPDATE api_keys SET mode = 'test' WHERE merchant_id = $1", merchant)
    answer = await role.http.post(
        "/v1/payments", json=role.body(), headers={**bearer(live), "Idempotency-Key": "order-1"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "lane-of-other-mode")
    forged = live.replace("kfy_live_", "kfy_test_")
    assert (await role.http.get("/v1/payments", headers=bearer(forged))).status_code == 401
    assert await http_role.published(stack, merchant) == []


async def test_processes_share_a_merchants_limit(stack: Stack, role: Ingress) -> None:
    merchant = f"m-{uuid.uuid4().hex[:12]}"
    key = await key_of(stack.database_url, merchant)
    async with merchants.connected(stack.database_url) as db:
        await merchants.add(db, merchant, Mode.TEST, rate_limit="20/hour")
    async with http_role.ingress(http_role.environment(stack)) as other:
        await other.well()
        codes = [(await role.http.get("/v1/payments", headers=bearer(key))).status_code for _ in range(25)]
        assert codes == [200] * 20 + [429] * 5

        async def refused() -> bool:
            return (await other.http.get("/v1/payments", headers=bearer(key))).status_code == 429

        await until(refused, "the other process has heard of it", PROMPT_S)
        async with merchants.connected(stack.database_url) as db:
            await merchants.add(db, merchant, Mode.TEST, rate_limit="1000/hour")

        async def allowed() -> bool:
            return (await other.http.get("/v1/payments", headers=bearer(key))).status_code == 200

        await until(allowed, "the new limit counts", PROMPT_S)
