"""A payment's journey, both ways in, as merchants and analysts see it."""

from __future__ import annotations

import json
import os
import uuid

import pytest
from confluent_kafka import Producer

from ops.kafka.clients import KafkaSettings
from ops.kafka.reading import present
from schemas import identity
from tests.e2e.gateway import Gateway, until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize(
    ("token", "state", "charged"),
    [
        ("pm_approve", "COMPLETED", 1),
        ("pm_decline", "FAILED", 0),
        ("pm_503_twice", "COMPLETED", 1),
        ("pm_timeout_charged", "COMPLETED", 1),
        ("pm_reset", "COMPLETED", 1),
    ],
)
async def test_each_answer_of_the_provider_ends_as_it_should(
    gateway: Gateway, token: str, state: str, charged: int
) -> None:
    payment_id = await gateway.create(payment_method=token)
    assert await gateway.wait_final([payment_id]) == {payment_id: state}
    assert (await gateway.charges([payment_id]))[payment_id] == charged


async def test_the_same_request_again_is_answered_with_the_existing_payment(gateway: Gateway) -> None:
    key = uuid.uuid4().hex
    first, again = await gateway.post(key), await gateway.post(key)
    assert (first.status_code, again.status_code) == (201, 409)
    assert first.json()["payment_id"] == again.json()["payment_id"]
    other = await gateway.post(key, amount="99.00")
    assert other.status_code == 422
    payment_id = first.json()["payment_id"]
    await gateway.wait_final([payment_id])
    assert (await gateway.charges([payment_id]))[payment_id] == 1


async def test_records_with_foreign_keys_and_partitioners_are_moved_home_and_deduplicated(gateway: Gateway) -> None:
    """librdkafka's default partitioner is not murmur2, and its keys are the producer's own."""
    producer = Producer({"bootstrap.servers": gateway.kafka})
    keys = [uuid.uuid4().hex for _ in range(40)]
    for key in keys:
        value = json.dumps({"type": "create", "idempotency_key": key, **gateway.body()}).encode()
        for foreign in (b"", b"x", key.encode()):
            producer.produce("payments.commands", value, key=foreign)
    assert producer.flush(20) == 0
    ids = [identity.payment_id(gateway.merchant_id, key) for key in keys]
    states = await gateway.wait_final(ids)
    assert set(states.values()) == {"COMPLETED"}
    assert await gateway.charges(ids) == dict.fromkeys(ids, 1)


async def test_a_trace_goes_from_the_request_to_the_provider_and_back_in_every_event(gateway: Gateway) -> None:
    """One payment over HTTP and one over Kafka, each called more than once, so that retries carry it too."""
    contexts = [f"00-{uuid.uuid4().hex}-00f067aa0ba902b7-01" for _ in range(2)]
    over_http = await gateway.http.post(
        f"{gateway.ingress}/v1/payments",
        json=gateway.body(payment_method="pm_503_twice"),
        headers={
            "Authorization": f"Bearer {gateway.api_key}",
            "Idempotency-Key": uuid.uuid4().hex,
            "traceparent": contexts[0],
        },
    )
    key = uuid.uuid4().hex
    command = {"type": "create", "idempotency_key": key, **gateway.body(payment_method="pm_timeout_charged")}
    async with gateway.producer() as producer:
        headers = [("traceparent", contexts[1].encode())]
        await producer.send_and_wait("payments.commands", json.dumps(command).encode(), headers=headers)
    ids = [over_http.json()["payment_id"], identity.payment_id(gateway.merchant_id, key)]
    await gateway.wait_final(ids)
    requests = (await gateway.observed())["requests"]
    for payment_id, context in zip(ids, contexts, strict=True):
        called = [seen["traceparent"] for seen in requests if payment_id in (seen["key"] or seen["path"])]
        assert len(called) > 1
        assert set(called) == {context}
        told = await gateway.db.fetch("SELECT traceparent FROM payment_events WHERE payment_id = $1::uuid", payment_id)
        assert len(told) > 4
        assert {row["traceparent"] for row in told} == {context}
    marked = {}
    apache = os.environ.get("TEST_STACK") == "apache"
    kafka = KafkaSettings(gateway.kafka, "apache" if apache else "tansu")
    async for record in present(kafka, "payments.results"):
        marked[record.key.decode()] = dict(record.headers).get("traceparent")
    assert [marked[payment_id] for payment_id in ids] == [context.encode() for context in contexts]


async def test_a_cancelled_payment_is_never_charged(gateway: Gateway) -> None:
    """The lane is kept busy, so the cancel comes before the payment's turn; either way both sides agree."""
    busy = [await gateway.create() for _ in range(60)]
    payment_id = await gateway.create(key := uuid.uuid4().hex)
    async with gateway.producer() as producer:
        cancel = {"type": "cancel", "merchant_id": gateway.merchant_id, "idempotency_key": key}
        await producer.send_and_wait("payments.commands", json.dumps(cancel).encode())
    states = await gateway.wait_final([*busy, payment_id])
    charged = (await gateway.charges([payment_id]))[payment_id]
    assert (states[payment_id], charged) in {("CANCELLED", 0), ("COMPLETED", 1)}

    async def answered() -> bool:
        events = await gateway.db.fetch("SELECT type FROM payment_events WHERE payment_id = $1::uuid", payment_id)
        return states[payment_id] == "CANCELLED" or "cancel_refused" in {row["type"] for row in events}

    await until(answered, "the cancel is answered")


async def test_a_thousand_garbage_records_are_dead_lettered_once_and_stall_nothing(gateway: Gateway) -> None:
    before = await gateway.db.fetchval("SELECT count(*) FROM dead_letters")
    async with gateway.producer() as producer:
        for number in range(1000):
            await producer.send("payments.commands", b"\x00\xff garbage %d" % number, key=b"%d" % number)
        await producer.flush()
    payment_id = await gateway.create()
    assert await gateway.wait_final([payment_id]) == {payment_id: "COMPLETED"}

    async def counted() -> bool:
        return bool(await gateway.db.fetchval("SELECT count(*) FROM dead_letters") >= before + 1000)

    await until(counted, "1,000 dead letters")
    assert await gateway.db.fetchval("SELECT count(*) FROM dead_letters") == before + 1000
