"""``Prefer: wait=N`` on real servers: the answer comes with the result, a server that stops answers what it knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest_asyncio

from ops.kafka.clients import KafkaSettings, Message, Publisher
from ops.local.stack import Stack
from schemas import codec, identity, topics
from schemas.records import PaymentResult, State
from tests.integration import http_role
from tests.integration.http_role import Ingress, until


@pytest_asyncio.fixture(loop_scope="session")
async def ingress(stack: Stack) -> AsyncIterator[Ingress]:
    await http_role.prepare(stack)
    async with http_role.ingress(http_role.environment(stack)) as found:
        await found.well()
        yield found


def create(ingress: Ingress, key: str, prefer: str) -> asyncio.Task[httpx2.Response]:
    headers = {"Idempotency-Key": key, "Prefer": prefer}
    return asyncio.create_task(ingress.http.post("/v1/payments", json=ingress.body(), headers=headers, timeout=40))


async def accepted(ingress: Ingress, payment_id: str) -> None:
    async def there() -> bool:
        return (await ingress.http.get(f"/v1/payments/{payment_id}")).status_code == 200

    await until(there, "the payment was accepted")


def result(payment_id: str) -> Message:
    ended = PaymentResult(
        status=State.COMPLETED, version=3, payment_id=payment_id, merchant_id="shop", idempotency_key="k",
        amount_minor=1250, currency="USD", lane="simulator", provider_charge_id="ch_1", attempts=1, accepted_at_ms=0,
        final_at_ms=1,
    )  # fmt: skip
    return Message(topics.RESULTS, payment_id.encode(), codec.encode(ended))


async def test_a_create_waits_for_its_payments_end_and_a_stop_answers_what_is_known(
    stack: Stack, ingress: Ingress
) -> None:
    sent = {key: create(ingress, key, "respond-async, wait=30") for key in ("ends", "stays")}
    ids = {key: identity.payment_id(ingress.merchant, key) for key in sent}
    for payment_id in ids.values():
        await accepted(ingress, payment_id)
    async with Publisher(KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect)) as publisher:
        await publisher.publish([result(ids["ends"])])
    answer = await sent["ends"]
    assert (answer.status_code, answer.headers["preference-applied"]) == (201, "wait=30")
    assert answer.json()["status"] == "COMPLETED"
    assert not sent["stays"].done()
    ingress.process.terminate()
    answer = await asyncio.wait_for(sent["stays"], 10)
    assert (answer.status_code, answer.json()["status"]) == (201, "PENDING")
    assert await ingress.process.wait() == 0
