"""Creates that wait for the end of their payment, over memory stores."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

from schemas.records import PaymentResult, State
from tests.unit.ingress.fakes import BODY, ID, KEY, World, post


def result(status: State = State.COMPLETED, payment_id: str = ID) -> PaymentResult:
    return PaymentResult(
        status=status, version=4, payment_id=payment_id, merchant_id="shop", idempotency_key=KEY, amount_minor=1250,
        currency="USD", lane="simulator", provider_charge_id="ch_1", reason="why", attempts=2, accepted_at_ms=0,
        final_at_ms=1_767_225_600_000,
    )  # fmt: skip


async def create(client: httpx2.AsyncClient, key: str = KEY, wait: str = "wait=20") -> httpx2.Response:
    return await client.post("/v1/payments", json=BODY, headers={"Idempotency-Key": key, "Prefer": wait})


async def accepted(world: World, count: int = 1) -> None:
    while len(world.kafka.records) < count:
        await asyncio.sleep(0)


async def test_the_answer_comes_with_the_end_of_the_payment() -> None:
    world = World()
    async with world.client() as client:
        sent = asyncio.create_task(create(client))
        await accepted(world)
        world.results.tell("another", b"")
        world.results.tell(ID, b"junk")
        world.results.tell(ID, result())
        answer = await sent
        stands = (await client.get(f"/v1/payments/{ID}")).json()
    assert (answer.status_code, answer.headers["preference-applied"]) == (201, "wait=20")
    ended = {"status": "COMPLETED", "version": 4, "attempts": 2, "reason": "why", "provider_charge_id": "ch_1",
             "updated_at": "2026-01-01T00:00:00.000Z", "retry_at": None, "queue": None}  # fmt: skip
    assert answer.json() == {**stands, **ended}
    assert answer.headers["location"] == f"/v1/payments/{ID}"


async def test_an_end_that_comes_before_the_ack_is_not_missed() -> None:
    world = World()
    world.kafka.gate = asyncio.Event()
    async with world.client() as client:
        sent = asyncio.create_task(create(client))
        while not world.keys.leases:
            await asyncio.sleep(0)
        world.results.tell(ID, result(State.FAILED))
        for _ in range(20):
            await asyncio.sleep(0)
        world.kafka.gate.set()
        assert (await sent).json()["status"] == "FAILED"


async def test_after_its_time_a_wait_is_answered_with_what_is_known() -> None:
    world = World()
    async with world.client() as client:
        began = asyncio.get_running_loop().time()
        answer = await create(client, wait="wait=1")
        assert 0.9 < asyncio.get_running_loop().time() - began < 10
    assert (answer.status_code, answer.json()["status"]) == (201, "PENDING")
    assert answer.headers["preference-applied"] == "wait=1"


async def test_where_nothing_is_preferred_nobody_listens_and_repeats_do_not_wait() -> None:
    world = World()
    async with world.client() as client:
        assert "preference-applied" not in (await post(client)).headers
        assert world.results.reading == 0
        again = await create(client)
    assert (again.status_code, "preference-applied" in again.headers) == (409, False)


async def test_waiting_takes_no_place_of_the_gate_and_is_bounded() -> None:
    world = World(in_flight_max=1, working=1, waiters_max=2)
    async with world.client() as client:
        waiting = []
        for n in range(2):
            waiting.append(asyncio.create_task(create(client, f"k-{n}")))
            await accepted(world, n + 1)
            for _ in range(20):
                await asyncio.sleep(0)
        one_more = await asyncio.wait_for(create(client, "k-3"), 5)
        assert (one_more.status_code, one_more.json()["status"]) == (201, "PENDING")
        assert "preference-applied" not in one_more.headers
        for record in world.kafka.records[:2]:
            world.results.tell(record.payment_id or "", result(payment_id=record.payment_id or ""))
        assert [answer.json()["status"] for answer in await asyncio.gather(*waiting)] == ["COMPLETED"] * 2


async def test_while_results_cannot_be_read_nobody_waits() -> None:
    world = World()
    world.results.away = True
    async with world.client() as client:
        answer = await asyncio.wait_for(create(client), 5)
    assert (answer.status_code, "preference-applied" in answer.headers) == (201, False)


async def test_a_server_that_stops_answers_what_it_accepted() -> None:
    world = World()
    async with world.client() as client:
        sent = asyncio.create_task(create(client))
        await accepted(world)
        for _ in range(20):
            await asyncio.sleep(0)
        world.finals.stop()
        answer = await asyncio.wait_for(sent, 5)
        assert "preference-applied" not in (await create(client, "k-2")).headers
    assert (answer.status_code, answer.json()["status"]) == (201, "PENDING")


async def test_a_client_that_has_left_frees_its_place() -> None:
    world = World(waiters_max=1)
    gone = asyncio.Event()
    body: list[dict[str, Any]] = [{"type": "http.request", "body": b'{"a":1}', "more_body": False}]

    async def receive() -> dict[str, Any]:
        if body:
            return body.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    waiter_ended = asyncio.Event()

    async def wait() -> None:
        with world.finals.expect(ID) as waiter:
            assert await waiter.result(60, receive) is None
        waiter_ended.set()

    body.clear()
    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert not world.finals.room
    gone.set()
    await asyncio.wait_for(waiter_ended.wait(), 5)
    await task
    assert world.finals.room
    await world.finals.close()
