"""POST and GET of payments over memory stores: which answer each request gets, and that a bad one publishes nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid
from typing import Any

import httpx2
import pytest

from ingress.payments import Replay
from ops.kafka.clients import RecordRefused
from schemas import command as commands
from schemas import identity
from tests.unit.ingress.fakes import AUTHORIZED, BODY, ID, KEY, World, post, problem, row

JSON = {"Content-Type": "application/json", "Idempotency-Key": KEY}


async def send(raw: bytes, **headers: str) -> tuple[httpx2.Response, World]:
    world = World()
    async with world.client() as client:
        answer = await client.post("/v1/payments", content=raw, headers={**JSON, **headers})
    return answer, world


def body(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in {**BODY, **changes}.items() if value != "(absent)"}).encode()


async def test_a_payment_is_created_and_found_at_once() -> None:
    world = World()
    async with world.client() as client:
        created = await post(client, description="Überweisung ₿ 🎉", metadata={"order": "1001"}, customer_id="c-1")
        assert created.status_code == 201
        assert created.headers["location"] == f"/v1/payments/{ID}"
        document = created.json()
        assert document["payment_id"] == ID == identity.payment_id("shop", KEY)
        assert document["status"] == "PENDING"
        assert document["amount"] == "12.50"
        assert document["description"] == "Überweisung ₿ 🎉"
        found = await client.get(created.headers["location"])
        assert found.status_code == 200
        assert found.content == created.content
    [record] = world.kafka.records
    assert (record.payment_id, record.idempotency_key, record.amount_minor) == (ID, KEY, 1250)


async def test_the_same_request_again_gets_the_payment_as_it_stands() -> None:
    world = World()
    async with world.client() as client:
        first, again = await post(client), await post(client)
        assert (again.status_code, again.content) == (409, first.content)
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotency-replayed"] == "true"
        world.payments.rows[ID] = row()
        later = await post(client)
        assert later.status_code == 409
        assert later.json()["status"] == "COMPLETED"
        assert later.content == (await client.get(f"/v1/payments/{ID}")).content
    assert len(world.kafka.records) == 1


async def test_the_industrys_other_habit_repeats_the_first_answer_whatever_became_of_the_payment() -> None:
    world = World(replay=Replay.ORIGINAL)
    async with world.client() as client:
        first = await post(client, metadata={"order": "1"})
        for found in (None, row(metadata='{"order": "1"}'), row(metadata='{"order": "1"}', state="FAILED")):
            if found is not None:
                command = world.kafka.records[0]
                at = dt.datetime.fromtimestamp((command.accepted_at_ms or 0) / 1000, dt.UTC)
                world.payments.rows[ID] = {**found, "accepted_at": at, "fingerprint": commands.fingerprint(command)}
                world.keys.entries.clear()
            again = await post(client, metadata={"order": "1"})
            assert (again.status_code, again.json() | {"queue": 0}) == (200, first.json() | {"queue": 0})
            assert (again.json()["queue"] is None) == (found is not None)
            assert again.headers["idempotency-replayed"] == "true"
            assert again.headers["location"] == first.headers["location"]
        problem(await post(client, amount="99.00"), 422, "idempotency-key-reused", "Idempotency-Key")
    assert len(world.kafka.records) == 1


async def test_the_same_key_for_another_body_is_refused_and_the_first_answer_does_not_leak() -> None:
    world = World()
    async with world.client() as client:
        await post(client)
        answer = await post(client, amount="99.00")
        problem(answer, 422, "idempotency-key-reused", "Idempotency-Key")
        assert "12.50" not in answer.text
        assert ID not in str(answer.headers) + answer.text
        assert "idempotency-replayed" not in answer.headers
        world.payments.rows[ID] = row()
        assert (await post(client, amount="99.00")).content == answer.content
    assert len(world.kafka.records) == 1


async def test_the_order_of_fields_and_trailing_zeros_do_not_make_another_body() -> None:
    world = World()
    async with world.client() as client:
        await post(client, metadata={"a": "1", "b": "2"})
        raw = json.dumps({"metadata": {"b": "2", "a": "1"}, **BODY, "amount": "12.5"}, indent=3).encode()
        assert (await client.post("/v1/payments", content=raw, headers=JSON)).status_code == 409
    assert len(world.kafka.records) == 1


async def test_a_request_during_the_first_one_is_told_to_wait() -> None:
    world = World()
    world.kafka.gate = asyncio.Event()
    async with world.client() as client:
        first = asyncio.create_task(post(client))
        while not world.keys.entries:
            await asyncio.sleep(0)
        busy = await post(client)
        problem(busy, 409, "request-in-progress")
        assert busy.headers["retry-after"] == "2"
        world.kafka.gate.set()
        assert (await first).status_code == 201
    assert len(world.kafka.records) == 1


async def test_without_an_ack_nothing_is_accepted_and_the_same_key_may_try_again() -> None:
    world = World()
    world.kafka_away()
    async with world.client() as client:
        answer = await post(client)
        problem(answer, 503, "kafka-away")
        assert answer.headers["retry-after"] == "1"
        problem(await client.get(f"/v1/payments/{ID}"), 404, "no-such-payment")
        world.kafka.error = None
        assert (await post(client)).status_code == 201


async def test_a_record_that_kafka_refuses_for_good_is_a_defect_of_ours() -> None:
    world = World()
    world.kafka.error = RecordRefused(0, ValueError("too large"))
    async with world.client() as client:
        problem(await post(client), 500, "internal-error")


async def test_beyond_the_limit_requests_are_refused_at_once_and_slow_bodies_do_not_count() -> None:
    world = World(in_flight_max=1, working=1)
    world.kafka.gate = asyncio.Event()
    never = asyncio.Event()

    async def slow_body() -> Any:
        yield b"{"
        await never.wait()

    async with world.client() as client:
        slow = [asyncio.create_task(client.post("/v1/payments", content=slow_body(), headers=JSON)) for _ in range(5)]
        await asyncio.sleep(0.01)
        first = asyncio.create_task(post(client))
        while not world.keys.entries:
            await asyncio.sleep(0)
        answer = await post(client, "another")
        problem(answer, 503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        problem(await client.get(f"/v1/payments/{ID}"), 503, "overloaded")
        world.kafka.gate.set()
        assert (await first).status_code == 201
        assert (await post(client, "another")).status_code == 201
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)


@pytest.mark.parametrize("amount", ["0", "0.00", "-1", "+1", "1.", ".5", "1e3", "1e400", "NaN", "Infinity", "1,00",
"", " 1",
                                    "1 ", "0x10", "12.505", "1" * 30, "10000000000000.01", "١٢", "1_000", "\u0000",
                                    "1\n"])  # fmt: skip
async def test_bad_money_is_named(amount: str) -> None:
    answer, world = await send(body(amount=amount))
    problem(answer, 422, "invalid-field", "amount")
    assert world.kafka.records == []


@pytest.mark.parametrize("amount", [12.5, 1250, True, ["12.50"], {"value": "12.50"}])
async def test_money_that_is_not_a_string_is_named(amount: object) -> None:
    answer, world = await send(body(amount=amount))
    problem(answer, 422, "invalid-field", "amount")
    assert world.kafka.records == []


@pytest.mark.parametrize(
    ("currency", "amount", "status"),
    [
        ("JPY", "100", 201), ("JPY", "100.5", 422), ("JPY", "100.0", 422), ("KWD", "1.234", 201),
        ("KWD", "1.2345", 422),
        ("ETB", "0.01", 201), ("CLF", "1.2345", 201), ("USD", "10000000000000.00", 201),
    ],
)  # fmt: skip
async def test_each_currency_has_its_own_decimals(currency: str, amount: str, status: int) -> None:
    answer, _ = await send(body(currency=currency, amount=amount))
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"currency": "XXX"}, "currency"), ({"currency": "usd"}, "currency"), ({"currency": "USDT"}, "currency"),
        ({"currency": 840}, "currency"), ({"currency": ""}, "currency"),
        ({"merchant_id": "a b"}, "merchant_id"), ({"merchant_id": "x" * 65}, "merchant_id"),
        ({"merchant_id": 1}, "merchant_id"),
        ({"payment_method": "4111111111111111"}, "payment_method"), ({"payment_method": "a b"}, "payment_method"),
        ({"customer_id": ""}, "customer_id"), ({"customer_id": "x" * 129}, "customer_id"),
        ({"customer_id": 5}, "customer_id"),
        ({"description": "x" * 501}, "description"), ({"description": "a\u0000b"}, "description"),
        ({"description": "\u202eevil"}, "description"), ({"description": "\ud800"}, "description"),
        ({"description": "card 4111 1111 1111 1111"}, "description"), ({"description": ["x"]}, "description"),
        ({"metadata": []}, "metadata"), ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a": None}}, "metadata.a"),
        ({"metadata": {"a": {"b": "c"}}}, "metadata.a"), ({"metadata": {"a b": "c"}}, "metadata"),
        ({"metadata": {f"k{n}": "v" for n in range(21)}}, "metadata"),
        ({"metadata": {"a": "4111-1111-1111-1111"}}, "metadata.a"),
        ({"lane": "nosuch"}, "lane"), ({"lane": "UPPER"}, "lane"), ({"lane": 1}, "lane"),
        ({"expires_at": "tomorrow"}, "expires_at"), ({"expires_at": "2030-01-01"}, "expires_at"),
        ({"expires_at": 5}, "expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
    ],
)  # fmt: skip
async def test_a_bad_field_is_named_and_its_value_is_not(changes: dict[str, Any], field: str) -> None:
    answer, world = await send(body(**changes))
    assert answer.status_code == 422
    found = problem(answer, 422, answer.json()["code"], field)
    assert "4111" not in answer.text
    assert found["detail"].startswith(field)
    assert world.kafka.records == []
    assert world.keys.entries == {}


@pytest.mark.parametrize("field", ["amount", "currency", "payment_method"])
@pytest.mark.parametrize("value", ["(absent)", None])
async def test_a_missing_field_is_named(field: str, value: str | None) -> None:
    answer, _ = await send(body(**{field: value}))
    problem(answer, 422, "missing-field", field)


@pytest.mark.parametrize(
    ("name", "told"),
    [("amuont", "amuont"), ("type", "type"), ("idempotency_key", "idempotency_key"), ("payment_id", "payment_id"),
     ("x\ny", "(unnamed)"), ("4111111111111111", "(unnamed)"), ("", "(unnamed)"), ("é", "(unnamed)")],
)  # fmt: skip
async def test_an_unknown_field_is_refused(name: str, told: str) -> None:
    answer, world = await send(body(**{name: "x"}))
    problem(answer, 422, "unknown-field", told)
    assert world.kafka.records == []


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"null", b"true", b"1", b'"x"', b"[]", b"[{}]", b"{", b"{}}", b"{]", b'{"a":}',
        b"{'a':1}", b'{"a":NaN}',
        b'{"a":1e999,"a":2}', b'{"amount":"1","amount":"2"}', b'{"a":' * 17 + b"1" + b"}" * 17, b"[" * 60_000,
        b"\xff\xfe{}",
        b'{"a":"\xc3\x28"}', b"\xef\xbb\xbf{}", b'{"a":' + b"9" * 5000 + b"}", b"\x00", b'{"a":"\x00"}', body()[:-1],
    ],
)  # fmt: skip
async def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    answer, world = await send(raw)
    problem(answer, 400, "invalid-json")
    assert world.kafka.records == []


@pytest.mark.parametrize(("size", "status"), [(65_536, 201), (65_537, 413), (500_000, 413), (1_048_577, 413)])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_may_have_64_kib(size: int, status: int, chunked: bool) -> None:
    raw = body()
    raw = raw[:-1] + b" " * (size - len(raw)) + b"}"

    async def pieces() -> Any:
        for start in range(0, len(raw), 10_000):
            yield raw[start : start + 10_000]

    world = World()
    async with world.client() as client:
        answer = await client.post("/v1/payments", content=pieces() if chunked else raw, headers=JSON)
    assert answer.status_code == status
    if status == 413:
        problem(answer, 413, "too-large")
        assert answer.headers["connection"] == "close"
        assert world.kafka.records == []


@pytest.mark.parametrize(
    ("headers", "status", "code", "field"),
    [
        ([], 400, "missing-idempotency-key", "Idempotency-Key"),
        ([("Idempotency-Key", "")], 400, "invalid-idempotency-key", "Idempotency-Key"),
        ([("Idempotency-Key", "a b")], 400, "invalid-idempotency-key", "Idempotency-Key"),
        ([("Idempotency-Key", "x" * 256)], 400, "invalid-idempotency-key", "Idempotency-Key"),
        ([("Idempotency-Key", b"\xc3\xa9")], 400, "invalid-idempotency-key", "Idempotency-Key"),
        ([("Idempotency-Key", "a\tb")], 400, "invalid-idempotency-key", "Idempotency-Key"),
        ([("Idempotency-Key", "order-4111111111111111")], 400, "invalid-idempotency-key", "Idempotency-Key"),
        ([("Idempotency-Key", "a"), ("Idempotency-Key", "a")], 400, "invalid-idempotency-key", "Idempotency-Key"),
        ([("Idempotency-Key", "a"), ("Content-Type", "text/plain")], 415, "unsupported-media-type", "Content-Type"),
        ([("Idempotency-Key", "a"), ("Content-Type", "")], 415, "unsupported-media-type", "Content-Type"),
        ([("Idempotency-Key", "a"),
        ("Content-Type", "application/jsonx")], 415, "unsupported-media-type", "Content-Type"),
        (
            [("Idempotency-Key", "a"), ("Content-Type", "application/json"), ("Content-Type", "text/plain")],
            415, "unsupported-media-type", "Content-Type",
        ),
        (
            [("Idempotency-Key", "a"), ("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
            415, "unsupported-encoding", "Content-Encoding",
        ),
    ],
)  # fmt: skip
async def test_a_bad_header_is_named(headers: list[tuple[Any, Any]], status: int, code: str, field: str) -> None:
    world = World()
    if code in {"missing-idempotency-key", "invalid-idempotency-key"}:
        headers = [*headers, ("Content-Type", "application/json")]
    async with world.client() as client:
        request = httpx2.Request(
            "POST", "http://gateway/v1/payments", headers=[*headers, *AUTHORIZED.items()], content=body()
        )
        answer = await client.send(request)
    problem(answer, status, code, field)
    assert "4111" not in answer.text
    assert world.kafka.records == []


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
@pytest.mark.parametrize("key", ["x", "x" * 255, "!~#$%&'()*+,-./:;<=>?@[]^_`{|}", "123456789012345"])
async def test_what_is_allowed_is_taken(kind: str, key: str) -> None:
    answer, world = await send(body(), **{"Content-Type": kind, "Idempotency-Key": key})
    assert answer.status_code == 201
    assert world.kafka.records[0].idempotency_key == key


async def test_uuids_are_no_card_numbers() -> None:
    """One in 120 random UUIDs holds 13 digits that pass the Luhn check."""
    world = World()
    async with world.client() as client:
        for _ in range(300):
            name = uuid.uuid4()
            answer = await post(client, name.hex, customer_id=str(name), metadata={"order": name.hex})
            assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    "name",
    ["x", "1", ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", f" {ID}", f"{ID}%00", "%00",
    "%F0%9F%8E%89",
     "x" * 2000, "4111111111111111", "%2e%2e", "null"],
)  # fmt: skip
async def test_what_is_no_payment_id_is_not_found(name: str) -> None:
    async with World().client() as client:
        answer = await client.get(f"/v1/payments/{name}")
    problem(answer, 404, "no-such-payment", "payment_id")
    assert "4111" not in answer.text


async def test_an_unknown_payment_is_not_found() -> None:
    async with World().client() as client:
        problem(await client.get(f"/v1/payments/{uuid.uuid4()}"), 404, "no-such-payment")


async def test_a_percent_encoded_id_is_the_id() -> None:
    world = World()
    async with world.client() as client:
        await post(client)
        encoded = "".join(f"%{ord(char):02x}" for char in ID)
        assert (await client.get(f"/v1/payments/{encoded}")).status_code == 200


async def test_a_payment_that_may_be_known_elsewhere_is_not_denied() -> None:
    world = World()
    world.keys.away = world.payments.away = True
    async with world.client() as client:
        answer = await client.get(f"/v1/payments/{ID}")
    problem(answer, 503, "store-away")
    assert answer.headers["retry-after"] == "1"
