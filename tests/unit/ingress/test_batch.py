"""Batches over memory stores: one answer a line, in order, and no line hinders another."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from ingress import batch, shapes
from schemas import command as commands
from schemas import identity
from tests.unit.ingress.fakes import BODY, ID, KEY, LANES, World, key_of, post, problem, row


def line(key: Any = KEY, **changes: Any) -> bytes:
    return json.dumps({**BODY, "idempotency_key": key, **changes}).encode()


async def send(client: httpx2.AsyncClient, *lines: bytes, kind: str = batch.MEDIA_TYPE) -> httpx2.Response:
    return await client.post("/v1/payments/batch", content=b"\n".join(lines), headers={"Content-Type": kind})


def answers(found: httpx2.Response) -> list[dict[str, Any]]:
    assert (found.status_code, found.headers["content-type"]) == (200, batch.MEDIA_TYPE), found.text
    said = [json.loads(each) for each in found.content.removesuffix(b"\n").split(b"\n")]
    assert [each["line"] for each in said] == list(range(1, len(said) + 1))
    for each in said:
        assert shapes.Line.model_validate(each)
        assert ("payment" in each) != ("problem" in each)
    return said


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_thousand_lines_are_a_thousand_payments_in_order(end: bytes) -> None:
    world = World(in_flight_max=200)
    async with world.client() as client:
        said = answers(await send(client, *(line(f"k-{n}") for n in range(999)), line("k-999") + end))
    assert [each["status"] for each in said] == [201] * 1000
    expected = [identity.payment_id("shop", f"k-{n}") for n in range(1000)]
    assert [each["payment"]["payment_id"] for each in said] == expected
    assert sorted(record.payment_id or "" for record in world.kafka.records) == sorted(expected)


async def test_a_bad_line_is_told_its_fault_and_the_others_go_on() -> None:
    world = World()
    world.payments.rows[ID] = row()
    wrong: list[tuple[bytes, int, str, str]] = [
        (b"", 400, "invalid-json", ""), (b"{", 400, "invalid-json", ""), (b"[1]", 400, "invalid-json", ""),
        (b"\xff", 400, "invalid-json", ""), (line("a") + b"\r\r{", 400, "invalid-json", ""),
        (line("a", amount="0"), 422, "invalid-field", "amount"),
        (line("a", colour="red"), 422, "unknown-field", "colour"),
        (line(None), 400, "invalid-idempotency-key", "idempotency_key"),
        (line("a b"), 400, "invalid-idempotency-key", "idempotency_key"),
        (line("4111111111111111"), 400, "invalid-idempotency-key", "idempotency_key"),
        (line(7), 400, "invalid-idempotency-key", "idempotency_key"),
        (json.dumps(BODY).encode(), 400, "missing-idempotency-key", "idempotency_key"),
        (line("a", description="x" * 70_000), 413, "too-large", ""),
        (line(KEY, amount="99.00"), 422, "idempotency-key-reused", "Idempotency-Key"),
        (line("a", type="create"), 422, "unknown-field", "type"),
        (line("a", merchant_id="other"), 422, "invalid-field", "merchant_id"),
    ]  # fmt: skip
    lines = [each for n, (bad, *_) in enumerate(wrong) for each in (bad, line(f"good-{n}"))]
    async with world.client() as client:
        said = answers(await send(client, *lines))
    assert [each["status"] for each in said[1::2]] == [201] * len(wrong)
    for (_, status, code, field), each in zip(wrong, said[::2], strict=True):
        assert (each["status"], each["problem"]["code"]) == (status, code)
        assert [error["field"] for error in each["problem"].get("errors", [])] == ([field] if field else [])
        assert "4111" not in json.dumps(each)
    assert len(world.kafka.records) == len(wrong)


async def test_lines_are_answered_as_requests_of_their_own_are() -> None:
    world = World()
    async with world.client() as client:
        first = await post(client)
        said = answers(await send(client, line(), line("b"), line("b"), line("b", amount="7.00")))
        assert said[0] == {"line": 1, "status": 409, "replayed": True, "payment": first.json()}
        assert [each["status"] for each in said] == [409, 201, 409, 422]
        assert said[2]["payment"] == said[1]["payment"]
        again = answers(await send(client, line("b")))
        assert again[0]["payment"] == said[1]["payment"]
    assert len(world.kafka.records) == 2


async def test_a_line_needs_no_merchant_and_a_defect_is_its_lines_alone() -> None:
    world = World()
    bare = json.dumps({name: value for name, value in BODY.items() if name != "merchant_id"} | {"idempotency_key": "a"})
    async with world.client() as client:
        assert answers(await send(client, bare.encode()))[0]["payment"]["merchant_id"] == "shop"
        world.kafka.error = RuntimeError("4111111111111111")
        said = answers(await send(client, line("b"), b"{"))
    assert [each["status"] for each in said] == [500, 400]
    assert "4111" not in json.dumps(said)


async def test_a_body_that_is_no_batch_is_refused_whole() -> None:
    world = World()
    async with world.client() as client:
        problem(await send(client, b""), 400, "empty-batch")
        problem(await send(client, b"\n"), 400, "empty-batch")
        problem(await send(client, *[line()] * 1001), 413, "too-many-lines")
        problem(await send(client, b"x" * (batch.BYTES_MAX + 1)), 413, "too-large")
        problem(await send(client, line(), kind="application/json"), 415, "unsupported-media-type", "Content-Type")
        reads = world.keyring.add(*key_of("shop", scopes=frozenset({"payments:read"})))
        denied = {"Content-Type": batch.MEDIA_TYPE, **reads}
        problem(await client.post("/v1/payments/batch", content=line(), headers=denied), 403, "missing-scope")
    assert world.kafka.records == []


async def test_without_an_ack_a_line_is_told_to_come_again() -> None:
    world = World()
    async with world.client() as client:
        world.kafka_away()
        [said] = answers(await send(client, line()))
        assert (said["status"], said["problem"]["code"], said["retry_after_s"]) == (503, "kafka-away", 1)
        world.kafka.error = None
        assert answers(await send(client, line()))[0]["status"] == 201


async def test_a_batch_takes_few_places_of_the_gate_and_few_batches_are_in_hand() -> None:
    world = World(in_flight_max=1000, working=1000)
    world.kafka.gate = asyncio.Event()
    async with world.client() as client:
        sent = [
            asyncio.create_task(send(client, *(line(f"{m}-{n}") for n in range(100)))) for m in range(batch.BATCHES_MAX)
        ]
        while world.keys.leases < batch.BATCHES_MAX * batch.AT_ONCE:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert world.keys.leases == batch.BATCHES_MAX * batch.AT_ONCE
        busy = await send(client, line())
        assert problem(busy, 503, "too-many-batches")
        assert busy.headers["retry-after"] == "1"
        world.kafka.gate.set()
        for each in sent:
            assert {said["status"] for said in answers(await each)} == {201}
        assert answers(await send(client, line()))[0]["status"] == 201


async def test_lines_stand_in_line_with_other_requests() -> None:
    world = World(in_flight_max=1, working=1)
    world.kafka.gate = asyncio.Event()
    async with world.client() as client:
        first = asyncio.create_task(send(client, line("a"), line("b")))
        while not world.keys.leases:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.kafka.gate.set()
        said = answers(await first)
    assert (said[0]["status"], said[1]["problem"]["code"]) == (201, "overloaded")


async def test_lines_that_cannot_begin_in_time_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH_S", -1)
    world = World()
    async with world.client() as client:
        said = answers(await send(client, line("a"), line("b")))
    assert [each["problem"]["code"] for each in said] == ["batch-too-slow"] * 2
    assert world.kafka.records == []


def test_the_example_is_a_line_that_is_taken() -> None:
    [example] = shapes.BATCH["requestBody"]["content"][batch.MEDIA_TYPE]["example"].splitlines()
    fields = json.loads(example)
    key = fields.pop("idempotency_key")
    assert commands.create(fields, idempotency_key=key, lanes=LANES, accepted_at_ms=0)
    said = [json.loads(each) for each in shapes.BATCH_200["content"][batch.MEDIA_TYPE]["example"].splitlines()]
    assert [shapes.Line.model_validate(each).line for each in said] == [1, 2]
