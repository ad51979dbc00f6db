"""The demo's fair share: counted in the provider's log, and a fault wherever it is not as promised."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from ops.fair_share import FEW, LANE, LIMIT, MANY, Calls, FairShare, with_lane
from ops.local.gateway import DEFAULT_LANES
from ops.local.state import Running
from schemas.lanes import parse_lanes

BEGAN_NS = 1_000_000_000
GAP_NS = 104_000_000
KEYS = {MANY[0]: "kfy_test_many", FEW[0]: "kfy_test_few"}
RUNNING = Running(ingress="http://gateway", lanes=json.dumps({LANE: {"url": "http://provider"}}))
SENT = {name: [f"{name}-{number}" for number in range(count)] for name, count in (MANY, FEW)}


def shared(after: int = 20) -> list[str]:
    """The payments in the order of their calls: the few come after so many."""
    return [*SENT[MANY[0]][:after], *SENT[FEW[0]], *SENT[MANY[0]][after:]]


def calls(order: list[str], gap_ns: int = GAP_NS, completed: int = MANY[1] + FEW[1]) -> Calls:
    requests = [{"key": key, "arrived_ns": BEGAN_NS + number * gap_ns} for number, key in enumerate(order, 1)]
    charges = [{"reference": key, "status": "approved"} for key in order]
    return Calls(SENT, requests, charges, BEGAN_NS, completed)


def test_who_was_called_when_is_counted() -> None:
    found = calls(shared())
    assert (found.total, found.charged(MANY[0]), found.charged(FEW[0])) == (85, 80, 5)
    assert [found.last(FEW[0]), found.last(MANY[0])] == [(25, 2.6), (85, 8.84)]
    assert found.faults() == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (calls(shared(80)), "last payment was call 85"),
        (calls(shared(36)), "last payment was call 41"),
        (calls(shared()[:-1]), "79 of demo-wholesale's 80"),
        (calls([]), "0 of demo-corner-shop's 5"),
        (calls([*shared(), SENT[FEW[0]][0]]), "1 payments were charged twice"),
        (calls(shared(), gap_ns=90_000_000), f"{LIMIT + 2} calls in a second"),
        (calls(shared(), completed=84), "84 of 85 payments are completed"),
    ],
)
def test_whatever_is_not_as_promised_is_a_fault(found: Calls, said: str) -> None:
    assert said in "; ".join(found.faults())


def test_the_lane_is_behind_those_that_there_are() -> None:
    assert list(parse_lanes(with_lane(""))) == [*parse_lanes(DEFAULT_LANES), LANE]
    assert list(parse_lanes(with_lane('{"live": {"provider": "x"}}'))) == ["live", LANE]
    assert (with_lane("{"), with_lane("[]")) == ("{", "[]")


class World:
    """Gateway, provider and PostgreSQL; ``called`` is how far the provider is."""

    def __init__(self, answer: Callable[[int], int] = lambda _: 201) -> None:
        self.called = 0
        self.batches: list[str] = []
        self._answer = answer

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "provider":
            found = calls(shared()[: self.called])
            return httpx2.Response(200, json={"requests": found.requests, "charges": found.charges})
        assert (request.url.path, request.headers["content-type"]) == ("/v1/payments/batch", "application/x-ndjson")
        merchant = next(name for name, key in KEYS.items() if request.headers["authorization"] == f"Bearer {key}")
        self.batches.append(merchant)
        lines = [json.loads(line) for line in request.content.splitlines()]
        assert {line["lane"] for line in lines} == {LANE}
        assert len({line["idempotency_key"] for line in lines}) == len(lines)
        body = "\n".join(
            json.dumps({"status": self._answer(number), "payment": {"payment_id": payment_id}})
            for number, payment_id in enumerate(SENT[merchant])
        )
        return httpx2.Response(200, content=body)

    async def fetchval(self, _: str, ids: list[str], state: str) -> int:
        assert (len(ids), state) == (85, "COMPLETED")
        return self.called


async def test_the_many_come_first_and_it_is_told_when_the_few_are_done_and_how_it_ended() -> None:
    world, told = World(), list[str]()
    db: Any = world
    fair = FairShare(RUNNING, KEYS, "run", told.append)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(world)) as http:
        await fair.send(http)
        done = []
        for world.called in (0, 24, 25, 60, 85):
            done.append(await fair.done(db, http))
        await fair.end(db, http)
    assert world.batches == [MANY[0], FEW[0]]
    assert done == [False, False, False, False, True]
    assert told[1].strip() == "demo-corner-shop's 5 payments are charged, while 60 of demo-wholesale's 80 still wait"
    assert told[2].strip().startswith("demo-corner-shop's last payment was call 25 of 85, after ")
    assert (len(told), fair.faults) == (3, [])


async def test_a_payment_that_is_not_taken_is_a_fault() -> None:
    fair = FairShare(RUNNING, KEYS, "run", lambda _: None)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(World(lambda n: 503 if n == 2 else 201))) as http:
        await fair.send(http)
    assert fair.faults == [
        "demo-wholesale's batch is answered 200, 79 of 80 created",
        "demo-corner-shop's batch is answered 200, 4 of 5 created",
    ]
