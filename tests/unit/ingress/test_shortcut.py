"""Creates go past the router: their answers are those of the router's own route, and they go on tick by tick."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from ingress.edge import Shortcut
from ingress.rates import Rates
from ingress.ticks import Ticks
from tests.unit.ingress import fakes
from tests.unit.ingress.fakes import AUTHORIZED, BODY, KEY, World

JSON = {"Content-Type": "application/json", "Idempotency-Key": KEY}
RAW = json.dumps(BODY).encode()
REQUESTS: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "a create": ("POST", "/v1/payments", JSON, RAW),
    "no key": ("POST", "/v1/payments", {"Content-Type": "application/json"}, RAW),
    "no json": ("POST", "/v1/payments", JSON, b"{"),
    "another type": ("POST", "/v1/payments", {**JSON, "Content-Type": "text/plain"}, RAW),
    "a bad amount": ("POST", "/v1/payments", JSON, json.dumps({**BODY, "amount": "-1"}).encode()),
    "too large": ("POST", "/v1/payments", JSON, b" " * 70_000),
    "a query": ("POST", "/v1/payments?x=1", JSON, RAW),
    "a slash": ("POST", "/v1/payments/", JSON, RAW),
    "another method": ("PUT", "/v1/payments", JSON, RAW),
    "options": ("OPTIONS", "/v1/payments", {}, b""),
    "head": ("HEAD", "/v1/payments", {}, b""),
    "a list": ("GET", "/v1/payments", {}, b""),
}


@pytest.fixture(autouse=True)
def within_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a merchant's rate begins anew with each."""
    monkeypatch.setattr(fakes, "Rates", functools.partial(Rates, clock=lambda: 1000.0))


class Routed:
    """The app; ``route`` is what served the last request, as the counts and the access log name it."""

    def __init__(self, *, shortcuts: bool) -> None:
        self.world = World()
        self.app: FastAPI = self.world.app()
        if not shortcuts:
            for middleware in self.app.user_middleware:
                middleware.kwargs.pop("shortcuts", None)
        self.route: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        self.route = scope.get("route")

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Any, ...]:
        transport = httpx2.ASGITransport(self)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTHORIZED) as client:
            found = await client.request(method, path, headers=headers, content=body)
        told = {name: value for name, value in found.headers.items() if name != "x-request-id"}
        document = found.json() if found.content else {}
        same = {name: value for name, value in document.items() if not name.endswith("_at")}
        return found.status_code, told, document.keys(), same, getattr(self.route, "path", None)


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_way_past_the_router_answers_as_the_router_does(name: str) -> None:
    short, routed = Routed(shortcuts=True), Routed(shortcuts=False)
    for _ in range(2):  # the second create is a repeat
        assert await short.answer(*REQUESTS[name]) == await routed.answer(*REQUESTS[name])
    assert isinstance(short.route, Shortcut) == (
        REQUESTS[name][:2] in {("POST", "/v1/payments"), ("POST", "/v1/payments?x=1")}
    )
    assert not isinstance(routed.route, Shortcut)


async def test_a_create_asks_no_store_before_its_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    tick = asyncio.Event()

    async def turn(_: Ticks) -> None:
        await tick.wait()

    monkeypatch.setattr(Ticks, "turn", turn)
    short = Routed(shortcuts=True)
    creating = asyncio.create_task(short.answer(*REQUESTS["a create"]))
    for _ in range(50):
        await asyncio.sleep(0)
    assert short.world.keys.entries == {}
    tick.set()
    assert (await creating)[0] == 201
    assert short.world.keys.entries != {}
