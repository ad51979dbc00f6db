"""Card numbers planted wherever somebody can put one, and then looked for wherever something is kept or said.

Each plant is a number of its own, so that a leak names the field that it came in by. What a producer writes to
``payments.commands`` itself is there, of course: everywhere else it must not be, nor anything that came over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import redis.asyncio as redis

from ops.kafka.clients import KafkaSettings
from ops.kafka.reading import partition_counts, present
from schemas import codec, identity, topics
from schemas.card_number import holds_card_number
from schemas.records import CommandType, PaymentCommand
from tests.e2e.gateway import Gateway, until

pytestmark = pytest.mark.e2e

SHAPES = ("{0}{1}{2}{3}", "{0} {1} {2} {3}", "{0}-{1}-{2}-{3}")
FIELDS = ("merchant_id", "amount", "currency", "payment_method", "customer_id", "description", "lane", "expires_at")
DIGITS = re.compile(rb"[0-9](?:[ -]?[0-9]){12,}")


def luhn(digits: str) -> str:
    """The digits with their check digit."""
    doubled = (int(char) * (2 - place % 2) for place, char in enumerate(reversed(digits)))
    return f"{digits}{-sum(n - 9 * (n > 9) for n in doubled) % 10}"


@dataclass
class Plants:
    """Numbers that were handed out, by where they went."""

    bank: str
    of: dict[str, str] = field(default_factory=dict)

    def one(self, where: str, *, plain: bool = False) -> str:
        """A new number for this place; as people write it, or as digits only."""
        number = luhn(f"{self.bank}{len(self.of):09}")
        assert len(number) == 16
        assert holds_card_number(number)
        self.of[number] = where
        shape = SHAPES[0] if plain else SHAPES[len(self.of) % len(SHAPES)]
        return shape.format(*(number[at : at + 4] for at in range(0, 16, 4)))

    def found_in(self, raw: bytes) -> set[str]:
        """Where the numbers in these bytes had been put."""
        runs = (re.sub(rb"[ -]", b"", run).decode() for run in DIGITS.findall(raw.replace(b"\0", b"")))
        return {where for run in runs for number, where in self.of.items() if number in run}


async def test_the_sweep_finds_what_is_there() -> None:
    plants = Plants("456789")
    for where in ("a", "b", "c"):
        assert plants.found_in(f"x {plants.one(where)}, 7".encode()) == {where}
    assert plants.found_in(b"0000" + plants.one("d", plain=True).encode() + b"99") == {"d"}
    assert plants.found_in(b"4567890000000099") == set()


def bodies(plants: Plants, good: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A create with one plant, for each field."""
    for name in FIELDS:
        yield name, {**good, name: plants.one(name)}
    yield "a metadata value", {**good, "metadata": {"order": plants.one("a metadata value")}}
    yield "a metadata key", {**good, "metadata": {plants.one("a metadata key").replace(" ", "-"): "x"}}
    yield "a field's name", {**good, plants.one("a field's name"): "x"}
    yield "an unknown field", {**good, "card": plants.one("an unknown field")}
    yield "deep inside", {**good, "metadata": {"a": {"b": [plants.one("deep inside")]}}}
    yield "a number", {**good, "description": int(plants.one("a number", plain=True))}
    fullwidth = "".join(chr(0xFF10 + int(char)) for char in plants.one("full width", plain=True))
    yield "full width", {**good, "description": fullwidth}
    yield "zero widths", {**good, "description": "\u200b".join(plants.one("zero widths", plain=True))}


async def plant_http(gateway: Gateway, plants: Plants) -> bytes:
    """Plant over HTTP; all that was answered."""
    said: list[bytes] = []
    key = {"Authorization": f"Bearer {gateway.api_key}"}

    async def ask(method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> int:
        answer = await gateway.http.request(
            method, f"{gateway.ingress}{path}", headers={**key, **(headers or {})}, **more
        )
        assert answer.status_code < 500, answer.text
        said.append(str(answer.headers).encode() + answer.content)
        return answer.status_code

    def named() -> dict[str, str]:
        return {"Idempotency-Key": uuid.uuid4().hex}

    kind, lines = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}
    for where, body in bodies(plants, gateway.body()):
        assert await ask("POST", "/v1/payments", named(), json=body) in {400, 422}, where
        line = json.dumps({**body, "idempotency_key": uuid.uuid4().hex})
        await ask("POST", "/v1/payments/batch", lines, content=line)
    for raw in ("{'%s'", '{"amount": %s', '"%s"', "%s"):
        await ask("POST", "/v1/payments", {**named(), **kind}, content=raw % plants.one("no JSON"))
    line = json.dumps({**gateway.body(), "idempotency_key": plants.one("a line's key", plain=True)})
    await ask("POST", "/v1/payments/batch", lines, content=line)
    assert (
        await ask("POST", "/v1/payments", {"Idempotency-Key": plants.one("a key", plain=True)}, json=gateway.body())
        == 400
    )
    payment_id = await gateway.create()
    for name in ("X-Request-Id", "tracestate", "Prefer", "User-Agent", "Content-Type", "Cookie", "Origin", "X-Other",
                 "Accept", "Referer", "Content-Encoding", "Last-Event-ID"):  # fmt: skip
        await ask("POST", "/v1/payments", {**named(), name: plants.one(name)}, json=gateway.body())
        await ask("GET", f"/v1/payments/{payment_id}", {name: plants.one(name)})
        await ask("GET", "/v1/events?limit=1", {name: plants.one(name)})
    for number, parent in (
        (plants.one("a trace id", plain=True), "1" * 16),
        ("a" * 16, plants.one("a span", plain=True)),
    ):
        await ask(
            "POST", "/v1/payments", {**named(), "traceparent": f"00-{number:0>32}-{parent}-01"}, json=gateway.body()
        )
    for bearer in ("Bearer {}", "Bearer kfy_test_{}.x", "Basic {}"):
        await ask("GET", "/v1/payments", {"Authorization": bearer.format(plants.one("a bearer", plain=True))})
    for path in ("/v1/payments/{}", "/v1/payments/{}/events", "/nowhere/{}", "/registry/subjects/{}/versions",
                 "/registry/schemas/ids/{}", "/docs/files/{}"):  # fmt: skip
        await ask("GET", path.format(quote(plants.one(f"the path {path}"))))
    await ask("POST", f"/v1/payments/{quote(plants.one('a cancel'))}/cancel")
    await ask("POST", f"/v1/payments/{payment_id}/cancel", content=plants.one("a cancel's body"))
    for name in ("status", "lane", "customer_id", "metadata", "created_from", "created_before", "limit", "cursor",
                 "after", "card"):  # fmt: skip
        for path in ("/v1/payments", "/v1/events", f"/v1/payments/{payment_id}/events"):
            await ask("GET", path, params={name: plants.one(f"the query {name}")})
    await ask("GET", "/v1/payments", params={plants.one("a query's name"): "1"})
    await ask("POST", "/registry/subjects/x", content=json.dumps({"schema": plants.one("a schema")}))
    said += [await raw_http(gateway, plants.one(f"no HTTP {number}"), shape) for number, shape in enumerate(RAW)]
    return b"\n".join(said)


RAW = (
    "{}\r\n\r\n",
    "GET /{} HTTP/1.1\r\n{}\r\n\r\n",
    "GET / HTTP/{}\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
)


async def raw_http(gateway: Gateway, number: str, shape: str) -> bytes:
    where = urlsplit(gateway.ingress)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(shape.replace("{}", number).encode())
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 15)
    finally:
        writer.close()


async def plant_kafka(gateway: Gateway, plants: Plants) -> tuple[int, list[str]]:
    """Plant over Kafka; how many records must be refused, and the keys of those that must not."""
    records: list[tuple[bytes, bytes | None, list[tuple[str, bytes]]]] = []
    for _, body in bodies(plants, gateway.body()):
        command = {"type": "create", "idempotency_key": uuid.uuid4().hex, **body}
        records.append((json.dumps(command).encode(), None, []))
    good = {"type": CommandType.CREATE, "merchant_id": gateway.merchant_id, "idempotency_key": "", "amount_minor": 1250,
            "currency": "USD", "payment_method": "pm_approve"}  # fmt: skip
    for name in ("merchant_id", "idempotency_key", "currency", "payment_method", "customer_id", "description", "lane"):
        command = {**good, "idempotency_key": uuid.uuid4().hex, name: plants.one(f"avro {name}", plain=True)}
        records.append((codec.encode(PaymentCommand(**command)), None, []))
    unreadable = [raw.format(plants.one("no record")) for raw in ("\0\0\0\0\1{}", "{{'{}'", "{}")]
    cancels = {"payment_id": plants.one("a cancel over Kafka")}, {"type": plants.one("a type")}
    unreadable += [json.dumps({"type": "cancel", **cancel}) for cancel in cancels]
    records += [(raw.encode(), None, []) for raw in unreadable]
    refused = len(records)
    keys = [uuid.uuid4().hex for _ in range(3)]
    values = [json.dumps({"type": "create", "idempotency_key": key, **gateway.body()}).encode() for key in keys]
    context = f"00-{plants.one('a trace over Kafka', plain=True):0>32}-{'1' * 16}-01"
    records += [
        (values[0], plants.one("a record's key").encode(), []),
        (values[1], None, [(plants.one("a header's name"), plants.one("a header").encode())]),
        (values[2], None, [("traceparent", context.encode())]),
    ]
    async with gateway.producer() as producer:
        for value, key, headers in records:
            await producer.send_and_wait(topics.COMMANDS, value, key=key, headers=headers)
    return refused, keys


async def kept(gateway: Gateway) -> dict[str, bytes]:
    """All that is kept or said anywhere, by where."""
    found: dict[str, bytes] = {"the log": (gateway.state.parent / "log").read_bytes()}
    kafka = KafkaSettings(gateway.kafka, "apache" if os.environ.get("TEST_STACK") == "apache" else "tansu")
    for topic in await partition_counts(kafka):
        parts = [repr((record.key, record.headers)).encode() + (record.value or b"")
                 async for record in present(kafka, topic)]  # fmt: skip
        found[topic] = b"\n".join(parts)
    tables = await gateway.db.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace = 'public'::regnamespace"
    )
    for (table,) in tables:
        rows = await gateway.db.fetch(f'SELECT t::text AS line FROM "{table}" AS t')
        found[f"table {table}"] = "\n".join(row["line"] for row in rows).encode()
    letters = await gateway.db.fetch("SELECT original FROM dead_letters")
    found["the letters' originals"] = b"\n".join(row["original"] for row in letters)
    async with redis.from_url(gateway.redis) as store:
        parts = []
        async for key in store.scan_iter():
            parts += [
                key,
                repr(await (store.hgetall(key) if await store.type(key) == b"hash" else store.dump(key))).encode(),
            ]
        found["redis"] = b"\n".join(parts)
    for name, address in {"ingress": gateway.ingress, **(await gateway.status())["admin"]}.items():
        found[f"metrics of {name}"] = (await gateway.http.get(f"{address}/metrics")).content
    return found


async def test_a_planted_card_number_is_kept_and_said_nowhere(gateway: Gateway) -> None:
    over_http, over_kafka = Plants("456789"), Plants("556789")
    before = await gateway.db.fetchval("SELECT count(*) FROM dead_letters")
    said = await plant_http(gateway, over_http)
    refused, keys = await plant_kafka(gateway, over_kafka)
    assert len(over_http.of) > 100
    assert len(over_kafka.of) > 30

    async def told() -> bool:
        return bool(await gateway.db.fetchval("SELECT count(*) FROM dead_letters") >= before + refused)

    await until(told, "every refused record is a dead letter")
    ids = [identity.payment_id(gateway.merchant_id, key) for key in keys]
    assert set((await gateway.wait_final(ids)).values()) == {"COMPLETED"}
    assert over_http.found_in(said) == set()
    for where, raw in (await kept(gateway)).items():
        assert over_http.found_in(raw) == set(), where
        if where != topics.COMMANDS:
            assert over_kafka.found_in(raw) == set(), where
