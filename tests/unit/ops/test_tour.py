"""The demo's tour: what is as promised is told, and whatever is not is a fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from ops.local.state import Running
from ops.tour import Tour

RUNNING = Running(ingress="http://gateway", api_key="kfy_test_x")
PAYMENT = {"payment_id": "p-1", "status": "PENDING"}


class Api:
    """Answers as the gateway does; ``spoil`` changes one answer: (status, headers, body)."""

    def __init__(self, spoil: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda _, answer: answer) -> None:
        self.count = 0
        self.seen: dict[str, bytes] = {}
        self._spoil = spoil

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.count += 1
        assert request.headers["authorization"] == "Bearer kfy_test_x"
        return httpx2.Response(**self._spoil(self.count, self._answer(request)))

    def _answer(self, request: httpx2.Request) -> dict[str, Any]:
        if request.url.path.endswith("/cancel"):
            return {"status_code": 202, "json": PAYMENT}
        if request.method == "GET":
            return {"status_code": 200, "json": {**PAYMENT, "status": "CANCELLED"}}
        before = self.seen.setdefault(request.headers["idempotency-key"], request.content)
        if self.count == 1:
            return {"status_code": 201, "json": PAYMENT}
        if before == request.content:
            return {"status_code": 409, "json": PAYMENT, "headers": {"idempotency-replayed": "true"}}
        return {"status_code": 422, "json": {"code": "idempotency-key-reused"}}


async def toured(api: Api, charged: int = 0) -> tuple[Tour, list[str]]:
    told: list[str] = []
    tour = Tour(RUNNING, "tour-1", told.append)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(api)) as http:
        await tour.send(http)
        tour.end(await tour.state(http), charged)
    return tour, told


async def test_a_gateway_as_promised_is_told_line_by_line() -> None:
    tour, told = await toured(Api())
    assert tour.faults == []
    assert [line.strip() for line in told] == [
        "a create is answered 201 PENDING",
        "the same request again is answered 409 PENDING",
        "another amount under its key is answered 422 idempotency-key-reused",
        "its cancel is answered 202 PENDING",
        "the cancelled payment is CANCELLED and was charged 0 times",
    ]


@pytest.mark.parametrize(
    ("queue", "told", "faults"),
    [
        (
            {"position": 18, "eta_s": 8.9, "reason": None},
            "it is number 18 in the queue, and its turn comes in 8.9 s",
            0,
        ),
        ({"position": None, "eta_s": None, "reason": "breaker-open"}, "it is number None in the queue", 0),
        ({"position": None, "eta_s": None, "reason": None}, "it is number None in the queue", 1),
    ],
)
async def test_its_place_in_the_queue_is_told(queue: dict[str, Any], told: str, faults: int) -> None:
    spoil = {"json": {**PAYMENT, "queue": queue}}
    tour, lines = await toured(Api(lambda count, answer: {**answer, **spoil} if count == 1 else answer))
    assert lines[1].strip().startswith(told)
    assert len(tour.faults) == faults


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (1, {"status_code": 200}), (1, {"json": {**PAYMENT, "status": "COMPLETED"}}), (2, {"status_code": 201}),
        (2, {"headers": {}}), (2, {"json": {**PAYMENT, "payment_id": "p-2"}}), (3, {"status_code": 409}),
        (3, {"json": {"code": "invalid-field"}}), (4, {"status_code": 404, "json": {"code": "no-such-payment"}}),
        (5, {"json": {**PAYMENT, "status": "FAILED"}}),
    ],
)  # fmt: skip
async def test_each_answer_that_is_not_as_promised_is_a_fault(number: int, change: dict[str, Any]) -> None:
    tour, _ = await toured(Api(lambda count, answer: {**answer, **change} if count == number else answer))
    assert len(tour.faults) == 1, json.dumps(tour.faults)


@pytest.mark.parametrize(
    ("state", "charged", "faults"),
    [("CANCELLED", 0, 0), ("CANCELLED", 1, 1), ("COMPLETED", 1, 0), ("COMPLETED", 2, 1), ("COMPLETED", 0, 1),
     ("PENDING", 0, 1)],
)  # fmt: skip
def test_it_ends_cancelled_and_never_charged_or_charged_once(state: str, charged: int, faults: int) -> None:
    tour = Tour(RUNNING, "tour-1", lambda _: None)
    tour.end(state, charged)
    assert len(tour.faults) == faults
