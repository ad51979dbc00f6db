"""Kafka away: accepted means in the outbox, and relayed in order when Kafka is back. Killed anywhere: nothing is lost.

Runs on a stack of its own, as its broker is stopped.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from ingress.outbox import Bounds, Outbox
from ops.kafka.clients import Message
from ops.local.stack import Stack, running
from schemas import codec, identity, topics
from schemas import command as commands
from schemas.records import CommandType, PaymentCommand
from streams.router import Record, Router
from tests.integration.http_role import LANE, Ingress, environment, ingress, prepare, published, until
from tests.integration.test_ingress_away import BOUND_S, KIND, Fault, taken

pytestmark = pytest.mark.kafka
AWAY = {"KAFKA_BOOTSTRAP": "127.0.0.1:9"}
FAILPOINTS = [
    pytest.param(name, marks=[] if name in {"ingress.after-outbox", "relay.after-publish"} else [pytest.mark.long])
    for name in (
        "ingress.after-claim", "ingress.after-publish", "ingress.before-outbox", "ingress.after-outbox",
        "ingress.after-remember", "relay.before-publish", "relay.after-publish", "relay.after-delete",
        "relay.after-commit",
    )
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own() -> AsyncIterator[Stack]:
    async with running(KIND, overrides=False) as found:
        await prepare(found)
        yield found


async def query(stack: Stack, sql: str, *arguments: Any) -> Any:
    connection = await asyncpg.connect(stack.database_url)
    try:
        return await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()


async def waiting(stack: Stack) -> int:
    """Rows in the outbox; its level says the same."""
    count: int = await query(stack, "SELECT count(*) FROM outbox")
    size = await query(stack, "SELECT coalesce(sum(octet_length(value)), 0)::bigint FROM outbox")
    level = await query(stack, "SELECT ARRAY[rows, bytes] FROM outbox_level")
    assert level == [count, size]
    return count


async def drained(stack: Stack) -> None:
    async def check() -> bool:
        return not await query(stack, "SELECT count(*) FROM outbox")

    await until(check, "the outbox is empty")
    assert await waiting(stack) == 0


async def metric(role: Ingress, name: str) -> float:
    text = (await role.http.get("/metrics")).text
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


def tasks_of(found: list[PaymentCommand]) -> Counter[str]:
    """How often each payment is forwarded by intake's own decisions, if these records came one after another."""
    router, memory, tasks = Router((LANE,), 12), dict[bytes, bytes](), Counter[str]()
    for offset, command in enumerate(found):
        key = (command.payment_id or "").encode()
        home = next(
            number for number in range(12)
            if router.plan([Record(number, offset, 1, codec.encode(command))], {}, 1).decisions != ["rehomed"]
        )  # fmt: skip
        plan = router.plan([Record(home, offset, 1, codec.encode(command))], memory, 1)
        assert plan.letters == [], command
        memory |= plan.remember
        tasks[key.decode()] += sum(message.topic in topics.queue_topics(LANE) for message in plan.messages)
    return tasks


@pytest.mark.alone
async def test_kafka_away_is_accepted_durably_and_relayed_in_order(own: Stack) -> None:
    async with ingress(environment(own) | AWAY) as role, ingress(environment(own)) as other:
        created, took_s = await role.timed_post("first")
        assert (created.status_code, took_s < BOUND_S) == (201, True), created.text
        payment_id = identity.payment_id(role.merchant, "first")
        answers = await asyncio.gather(*(role.timed_post() for _ in range(100)))
        assert Counter(answer.status_code for answer, _ in answers) == {201: 100}
        assert max(took_s for _, took_s in answers) < BOUND_S
        state = await role.readiness()
        assert (state["code"], "kafka" in state["degraded"]) == (200, True)
        await drained(own)  # the other process has a broker
        await other.become(role.merchant)
        assert (await other.post("first")).status_code == 409
        found = await published(own, role.merchant)
        assert Counter(tasks_of(found).values()) == {1: 101}
        assert payment_id in {command.payment_id for command in found}


@pytest.mark.alone
async def test_a_publish_that_timed_out_may_be_stored_twice_and_is_one_payment(own: Stack) -> None:
    """The cancel follows its create through the outbox, and behind it."""
    async with ingress(environment(own)) as role:
        await role.well()
        fault = Fault(own, frozenset({"kafka"}), "hung")
        fault.begin()
        try:
            first, took_s = await role.timed_post("order-1")
            assert (first.status_code, took_s < BOUND_S) == (201, True)
            more, took_s = await role.timed_post("order-2")
            assert (more.status_code, took_s < 0.5) == (201, True)
            again = await role.post("order-1")
            assert (again.status_code, again.headers["idempotency-replayed"]) == (409, "true")
            assert (await role.post("order-1", amount="99.00")).status_code == 422
            assert await waiting(own) == 2
            assert await metric(role, "kifiya_outbox_rows") <= 2
        finally:
            await fault.end()
        await drained(own)
        await role.well()
        found = await published(own, role.merchant)
        assert tasks_of(found) == {
            identity.payment_id(role.merchant, "order-1"): 1, identity.payment_id(role.merchant, "order-2"): 1,
        }  # fmt: skip
        assert 2 <= len(found) <= 4


async def test_commands_of_a_payment_leave_the_outbox_one_after_another(own: Stack) -> None:
    """Put there by one process while another relays: the cancel is published after its create is acked."""
    merchant = f"m-{uuid.uuid4().hex[:12]}"
    outbox = Outbox(own.database_url, Bounds(1000, 10**6))
    fields = {"merchant_id": merchant, "amount": "1.00", "currency": "USD", "payment_method": "pm_approve"}
    try:
        for number in range(20):
            create = commands.create(fields, idempotency_key=f"k{number}", lanes=frozenset(), accepted_at_ms=1)
            key = (create.payment_id or "").encode()
            cancel = PaymentCommand(
                type=CommandType.CANCEL, payment_id=create.payment_id, merchant_id=merchant, accepted_at_ms=2
            )
            assert not await outbox.append(Message(topics.COMMANDS, key, codec.encode(cancel)), behind=True)
            assert await outbox.append(Message(topics.COMMANDS, key, codec.encode(create)))
            assert await outbox.append(Message(topics.COMMANDS, key, codec.encode(cancel)), behind=True)
            assert await outbox.find(create.payment_id or "") == codec.encode(create)
        assert await waiting(own) == 40
    finally:
        await outbox.close()
    async with ingress(environment(own)):
        await drained(own)
    found = await published(own, merchant)
    seen: dict[str, list[str]] = {}
    for command in found:
        seen.setdefault(command.payment_id or "", []).append(command.type.value)
    assert list(seen.values()) == [["create", "cancel"]] * 20


@pytest.mark.alone
@pytest.mark.long
async def test_a_full_outbox_is_told_and_takes_again_when_it_is_empty(own: Stack) -> None:
    async with ingress(environment(own) | AWAY | {"OUTBOX_MAX_ROWS": "3"}) as role:
        answers = [await role.timed_post() for _ in range(5)]
        assert [answer.status_code for answer, _ in answers] == [201, 201, 201, 503, 503]
        assert answers[-1][0].json()["code"] == "kafka-away"
        assert max(took_s for _, took_s in answers) < BOUND_S

        async def unready() -> bool:
            return bool((await role.readiness())["code"] == 503)

        await until(unready, "it is not ready")
        async with ingress(environment(own)):
            await drained(own)
        assert (await role.post()).status_code == 201
    async with ingress(environment(own) | AWAY | {"OUTBOX_MAX_BYTES": "500"}) as role:
        assert (await role.post(description="x" * 500)).status_code == 503
    async with ingress(environment(own)):
        await drained(own)


@pytest.mark.long
async def test_any_number_of_relays_publish_each_command_once(own: Stack) -> None:
    async with ingress(environment(own) | AWAY) as role:
        answers = await asyncio.gather(*(role.post() for _ in range(450)))
        assert {answer.status_code for answer in answers} == {201}
        merchant = role.merchant
    settings = environment(own)
    async with ingress(settings) as one, ingress(settings) as two, ingress(settings) as three:
        await drained(own)

        async def told() -> bool:
            return sum([await metric(each, "kifiya_outbox_relayed_total") for each in (one, two, three)]) == 450

        await until(told, "450 commands are relayed")
    assert Counter(tasks_of(await published(own, merchant)).values()) == {1: 450}
    assert len(await published(own, merchant)) == 450


@pytest.mark.parametrize("name", FAILPOINTS)
async def test_a_kill_at_any_point_loses_nothing_that_was_accepted(own: Stack, name: str) -> None:
    """The process dies by kill -9 at its third time there; the client asks again, and each payment is one."""
    through_outbox = "outbox" in name
    role_settings = environment(own) | {"FAILPOINTS": f"{name}=kill{'' if 'relay' in name else '@3'}"}
    keys = [f"order-{number}" for number in range(5)]
    merchant = f"m-{uuid.uuid4().hex[:12]}"
    accepted: set[str] = set()
    if "relay" in name:  # what it is to relay when it starts
        async with ingress(environment(own) | AWAY) as role:
            await role.become(merchant)
            for key in keys:
                assert (await role.post(key)).status_code == 201
                accepted.add(key)
    async with ingress(role_settings | (AWAY if through_outbox else {})) as role:
        await role.become(merchant)
        for key in keys:
            try:
                if (await role.post(key)).status_code == 201:
                    accepted.add(key)
            except httpx2.TransportError:
                break
        async with asyncio.timeout(15):
            assert await role.process.wait() == -9
    assert len(accepted) >= 2
    async with ingress(environment(own)) as role:
        await role.become(merchant)
        for key in keys:
            answer = await taken(role, key)
            assert answer.status_code in ({409} if key in accepted else {201, 409})
        await drained(own)
    found = await published(own, merchant)
    assert tasks_of(found) == {identity.payment_id(merchant, key): 1 for key in keys}


@pytest.mark.alone
async def test_both_away_is_refused_within_the_bound(own: Stack) -> None:
    fault = Fault(own, frozenset({"postgres"}), "hung")
    async with ingress(environment(own) | AWAY) as role:
        fault.begin()
        try:
            for _ in range(3):
                began = time.monotonic()
                answers = await asyncio.gather(*(role.post() for _ in range(50)))
                assert {answer.status_code for answer in answers} == {503}
                assert time.monotonic() - began < BOUND_S
        finally:
            await fault.end()
