"""Headers for browsers: CORS answers the origins that are set and nobody else, and is off by default."""

from __future__ import annotations

import httpx2
import pytest

from ingress.security_headers import ORIGIN, Cors, hsts
from tests.unit.ingress.fakes import AUTHORIZED, BODY, World, problem

SHOP = "https://shop.example"
ASKED = {"Origin": SHOP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key"}


def client(*origins: str) -> httpx2.AsyncClient:
    app = World().app()
    if origins:
        app.add_middleware(Cors, origins=frozenset(origins))
    transport = httpx2.ASGITransport(app)
    return httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTHORIZED)


async def test_no_origin_is_let_in_by_default() -> None:
    async with client() as found:
        preflight = await found.options("/v1/payments", headers=ASKED)
        answer = await found.get("/healthz", headers={"Origin": SHOP})
    problem(preflight, 405, "method-not-allowed")
    assert not [name for each in (preflight, answer) for name in each.headers if name.startswith("access-control")]


async def test_an_origin_that_is_set_may_create_and_read() -> None:
    async with client(SHOP, "http://localhost:3000") as found:
        key = found.headers.pop("authorization")
        preflight = await found.options("/v1/payments", headers=ASKED)  # a browser sends no key with it
        found.headers["authorization"] = key
        answer = await found.post("/v1/payments", json=BODY, headers={"Origin": SHOP, "Idempotency-Key": "order-1"})
        refused = await found.post("/v1/payments", json=BODY, headers={"Origin": SHOP})
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert "POST" in preflight.headers["access-control-allow-methods"]
    allowed = preflight.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "content-type", "idempotency-key", "prefer", "traceparent"} <= set(allowed)
    assert preflight.headers["x-content-type-options"] == "nosniff"
    assert answer.status_code == 201
    problem(refused, 400, "missing-idempotency-key", "Idempotency-Key")
    for each in (preflight, answer, refused):
        assert each.headers["access-control-allow-origin"] == SHOP
        assert "Origin" in each.headers["vary"]
        assert "access-control-allow-credentials" not in each.headers
    assert "Idempotency-Replayed" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", ["https://evil.example", f"{SHOP}.evil.example", "null", "http://shop.example", "*"])
async def test_another_origin_reads_nothing(origin: str) -> None:
    async with client(SHOP) as found:
        preflight = await found.options("/v1/payments", headers={**ASKED, "Origin": origin})
        answer = await found.get("/healthz", headers={"Origin": origin})
    for each in (preflight, answer):
        assert not [name for name in each.headers if name.startswith("access-control")]
        assert each.headers["vary"] == "Origin"  # or a cache shows one origin the answer to another


@pytest.mark.parametrize(
    ("text", "whole"),
    [(SHOP, True), ("http://localhost:3000", True), ("http://[::1]:80", True), ("*", False), ("null", False),
     (f"{SHOP}/", False), (f"{SHOP}/pay", False), ("https://Shop.example", False), ("ftp://shop.example", False),
     ("https://*.example", False), ("https://a@shop.example", False), ("shop.example", False)],
)  # fmt: skip
def test_an_origin_is_a_scheme_a_host_and_a_port(text: str, whole: bool) -> None:
    assert bool(ORIGIN.fullmatch(text)) == whole


def test_hsts_is_said_where_it_is_set() -> None:
    assert hsts(0) == []
    assert hsts(31_536_000) == [("strict-transport-security", "max-age=31536000; includeSubDomains")]
