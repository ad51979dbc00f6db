"""The route of events: pages that join without a seam, and a clear word for everything that is asked wrongly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI, Request

from ingress import cursor, events, problem
from ingress.catchup import Readers
from ingress.feed import Bounds, Feed
from ingress.recent import Recent
from ingress.tail import Tail, merchant_of
from ingress.tenants import CALLER, INVALID, Caller
from schemas import codec
from schemas.api_key import Mode
from schemas.records import EventType, PaymentEvent, State
from tests.unit.ingress.fakes import problem as problem_of
from tests.unit.ingress.test_stream import MemoryReaders, MemoryTail

CONTEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def event(merchant: str, payment_id: str = "p-1", version: int = 1) -> bytes:
    return codec.encode(
        PaymentEvent(
            type=EventType.STATE_CHANGED, version=version, state=State.PENDING, payment_id=payment_id,
            merchant_id=merchant, idempotency_key="order-1", fingerprint="ab" * 32, amount_minor=1250, currency="USD",
            payment_method="pm_approve", lane="simulator", accepted_at_ms=0, at_ms=1_769_860_800_123,
        )
    )  # fmt: skip


class Known:
    """Stands for the edge: the caller and the scope are what a header of the tests says."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        named = dict(scope["headers"]).get(b"x-caller", b"").decode().split()
        if named:
            scope[CALLER] = Caller(named[0], Mode.TEST, frozenset(named[1:]), "0" * 16)
        await self._app(scope, receive, send)


class Gateway:
    """The route over a topic of two partitions in memory."""

    def __init__(self) -> None:
        self.tail = MemoryTail(Recent([0, 0]))
        self.readers = MemoryReaders()
        self.away = self.revoked = False
        self.bounds = Bounds(1, 1)
        self.feed = Feed(cast("Tail", self.tail), cast("Readers", self.readers), self.ping)

    async def ping(self) -> None:
        if self.away:
            raise OSError("nobody there")

    async def again(self, _: Request) -> None:
        if self.revoked:
            raise INVALID

    def add(self, partition: int, offset: int, merchant: str, version: int = 1, context: str | None = None) -> None:
        assert self.tail.present is not None
        self.tail.present.add(partition, offset, merchant, event(merchant, version=version), context)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        app = FastAPI()
        app.add_middleware(Known)
        app.include_router(events.routes(events.Live(self.feed, self.bounds, self.again, 0.05)))
        problem.install(app)
        headers = {"x-caller": "shop payments:read"}
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as found:
            yield found


async def test_pages_join_without_a_seam_and_hold_nothing_of_others() -> None:
    gateway = Gateway()
    for offset in range(5):
        gateway.add(0, offset, "shop", version=offset + 1, context=CONTEXT if offset == 4 else None)
        gateway.add(1, offset, "other")
    found: list[dict[str, Any]] = []
    async with gateway.client() as http:
        after, more = "beginning", True
        while more:
            page = (await http.get("/v1/events", params={"after": after, "limit": 2})).json()
            assert len(page["events"]) <= 2
            found += page["events"]
            after, more = page["next"], page["more"]
        assert cursor.decode(after) == (5, 5)
        assert (await http.get("/v1/events", params={"after": found[2]["cursor"]})).json()["events"] == found[3:]
        assert (await http.get("/v1/events", params={"after": "latest"})).json()["events"] == []
    assert [seen["version"] for seen in found] == [1, 2, 3, 4, 5]
    assert {seen["merchant_id"] for seen in found} == {"shop"}
    assert [seen["traceparent"] for seen in found] == [None] * 4 + [CONTEXT]
    assert found[0] == {
        "cursor": cursor.encode([1, 0]), "payment_id": "p-1", "merchant_id": "shop", "idempotency_key": "order-1",
        "currency": "USD", "amount": "12.50", "version": 1, "type": "state_changed", "status": "PENDING", "attempt": 0,
        "call": None, "outcome": None, "reason": None, "detail": None, "provider_charge_id": None, "replay_id": None,
        "lane": "simulator", "at": "2026-01-31T12:00:00.123Z", "sent_at_us": None, "topic": "payments.events",
        "partition": 0, "offset": 0, "traceparent": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("limit=0", "invalid-parameter", "limit"),
        ("limit=501", "invalid-parameter", "limit"),
        ("limit=-1", "invalid-parameter", "limit"),
        ("limit=%D9%A3", "invalid-parameter", "limit"),
        ("limit=1&limit=2", "invalid-parameter", "limit"),
        ("after=beginning&after=latest", "invalid-parameter", "after"),
        ("since=1", "invalid-parameter", "since"),
        ("%00=1", "invalid-parameter", "(unnamed)"),
        ("after=", "invalid-cursor", "after"),
        ("after=AQAA", "invalid-cursor", "after"),
        ("after=" + "A" * 5000, "invalid-cursor", "after"),
    ],
)
async def test_what_is_asked_wrongly_is_named(query: str, code: str, field: str) -> None:
    async with Gateway().client() as http:
        for accept in ("application/json", "text/event-stream"):
            problem_of(await http.get(f"/v1/events?{query}", headers={"Accept": accept}), 400, code, field)


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_who_may_not_and_what_is_gone(accept: str) -> None:
    gateway = Gateway()
    gateway.readers.first, gateway.tail.present = 7, Recent([9, 9])
    async with gateway.client() as http:
        http.headers["Accept"] = accept
        problem_of(await http.get("/v1/events", params={"after": cursor.encode([6, 8])}), 410, "cursor-gone")
        problem_of(await http.get("/v1/events", headers={"Last-Event-ID": "x"}), 400, "invalid-cursor", "Last-Event-ID")
        http.headers["x-caller"] = "shop payments:write"
        problem_of(await http.get("/v1/events"), 403, "missing-scope")
        del http.headers["x-caller"]
        problem_of(await http.get("/v1/events"), 401, "missing-api-key", "Authorization")


async def test_a_page_without_kafka_is_503_and_a_stream_too_many_is_refused() -> None:
    gateway = Gateway()
    gateway.away = True
    async with gateway.client() as http:
        problem_of(await http.get("/v1/events"), 503, "kafka-away")
        with gateway.bounds.stream("shop"):
            answer = await http.get("/v1/events", headers={"Accept": "text/event-stream"})
            problem_of(answer, 429, "too-many-streams")
            assert answer.headers["retry-after"] == "5"
        gateway.feed.stop()
        problem_of(await http.get("/v1/events", headers={"Accept": "text/event-stream"}), 503, "stopping")


def test_what_is_no_event_is_nobodys() -> None:
    assert merchant_of(event("shop")) == "shop"
    assert merchant_of(b"garbage") is None
    assert merchant_of(None) is None
