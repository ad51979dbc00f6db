"""Whatever a stranger sends: never a 5xx, never a word of it in an error, and one record for each 201."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.ingress.fakes import AUTHORIZED, BODY, World

COMMON = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
CANARY = "4111111111111111"

text = st.text(max_size=40) | st.sampled_from(
    ["", "\x00", "🎉", "\u202e", CANARY, "NaN", "1e400", "-0", "0.00", "12.50"]
)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
fields = st.dictionaries(
    st.sampled_from([*BODY, "customer_id", "description", "metadata", "lane", "expires_at", "type", "x"]), anything
)
near_misses = fields.map(lambda changes: {**BODY, **changes})
headers = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=80)


class Gateway:
    """The app on a loop of its own, as hypothesis calls synchronous tests."""

    def __init__(self) -> None:
        self.world = World()
        self.app = self.world.app()
        self.loop = asyncio.new_event_loop()

    def request(self, method: str, path: str, **more: Any) -> httpx2.Response:
        return self.loop.run_until_complete(self._request(method, path, **more))

    async def _request(self, method: str, path: str, **more: Any) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTHORIZED) as client:
            return await client.request(method, path, **more)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    found = Gateway()
    yield found
    found.loop.close()


def check_create(gateway: Gateway, raw: bytes, key: str) -> None:
    before = len(gateway.world.kafka.records)
    sent = {"Idempotency-Key": key.encode("latin-1"), "Content-Type": b"application/json"}
    answer = gateway.request("POST", "/v1/payments", content=raw, headers=sent)
    assert answer.status_code in {201, 400, 409, 413, 422}, answer.text
    assert len(gateway.world.kafka.records) - before == (answer.status_code == 201)
    if answer.status_code in {201, 409}:
        found = gateway.request("GET", f"/v1/payments/{answer.json()['payment_id']}")
        assert (found.status_code, found.content) == (200, answer.content)
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
    assert CANARY not in answer.text


@COMMON
@given(raw=st.binary(max_size=200))
def test_any_bytes(gateway: Gateway, raw: bytes) -> None:
    check_create(gateway, raw, "k")


@COMMON
@given(value=anything)
def test_any_json(gateway: Gateway, value: Any) -> None:
    check_create(gateway, json.dumps(value).encode(), "k")


@COMMON
@given(value=near_misses, key=st.uuids().map(str))
def test_any_payment(gateway: Gateway, value: Any, key: str) -> None:
    check_create(gateway, json.dumps(value).encode(), key)


@COMMON
@given(key=headers)
def test_any_key(gateway: Gateway, key: str) -> None:
    check_create(gateway, json.dumps(BODY).encode(), key)


@COMMON
@given(
    amount=st.decimals(allow_nan=True, allow_infinity=True).map(str) | st.from_regex(r"[0-9.]{1,24}", fullmatch=True),
    currency=st.sampled_from(["USD", "JPY", "KWD", "ETB", "XAU", "CLF"]),
    key=st.uuids().map(str),
)
def test_any_money(gateway: Gateway, amount: str, currency: str, key: str) -> None:
    check_create(gateway, json.dumps({**BODY, "amount": amount, "currency": currency}).encode(), key)


@COMMON
@given(moment=st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()), key=st.uuids().map(str))
def test_any_expiry(gateway: Gateway, moment: str, key: str) -> None:
    check_create(gateway, json.dumps({**BODY, "expires_at": moment}).encode(), key)


@COMMON
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]),
    parts=st.lists(
        st.text(min_size=1, max_size=20) | st.sampled_from(["v1", "payments", "registry", "docs"]), max_size=5
    ),
    name=st.sampled_from(["x-request-id", "content-type", "accept", "content-encoding", "if-none-match", "range"]),
    value=headers,
)
def test_any_address_and_header(gateway: Gateway, method: str, parts: list[str], name: str, value: str) -> None:
    url = httpx2.URL("http://gateway").copy_with(raw_path=b"/" + "/".join(map(quote, parts)).encode())
    answer = gateway.request(method, str(url), headers={name: value.encode("latin-1")})
    assert answer.status_code < 500


def quote(part: str) -> str:
    return "".join(f"%{byte:02x}" for byte in part.encode("utf-8", "surrogatepass"))
