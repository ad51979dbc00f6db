"""What creates, reads and lanes say of queues, and when a lane takes no more, over memory stores."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import orjson
import pytest

from ingress import lane_resources, queues, shapes
from ingress.queues import LEVEL_OF, Queues, nominal, with_queue
from ingress.sample import Line, Sample
from ingress.waiting import BREAKER_OPEN
from schemas import command as commands
from schemas import topics
from schemas.lanes import Lane
from tests.unit.ingress.fakes import BODY, ID, KEY, World, key_of, post, problem, row

LANES = {"simulator": Lane(name="simulator", limit=10, guard_ms=0), "other": Lane(name="other", max_wait_s=60)}


def seen(of: Queues, lane: str, waiting: int, paused: str | None = None, due: int = 0) -> None:
    """The lane was looked at: so many wait in each of two partitions."""
    line = Line((waiting + 5, waiting + 5), (5, 5), (None, 1_700_000_000_000))
    empty = Line((5, 5), (5, 5), (None, None))
    lines = (line, *[empty] * (len(LEVEL_OF) - 1))
    retries = Line((due, 0), (0, 0))
    sample = Sample(time.monotonic(), time.time_ns() // 1_000_000, lines, retries, paused=paused)
    of.waiting[lane].observe(sample, of.waiting[lane].counted())


def world(**changes: Any) -> World:
    return World(queues=Queues({**LANES, **changes}))


async def test_every_pending_answer_carries_place_and_time() -> None:
    of = world()
    seen(of.queues, "simulator", 100)
    async with of.client() as client:
        created = await post(client)
        assert created.status_code == 201
        queue = created.json()["queue"]
        assert queue["reason"] is None
        assert 100 < queue["position"] <= 201  # some were served while a slow machine came here
        assert queue["eta_s"] == pytest.approx(queue["position"] / 10, abs=0.2)
        assert queue["eta"].endswith("Z")
        again = (await post(client)).json()["queue"]
        found = (await client.get(f"/v1/payments/{ID}")).json()["queue"]
        of.payments.rows[ID] = row(state="PENDING", attempt=0)
        [listed] = (await client.get("/v1/payments")).json()["payments"]
        assert queue["position"] + 1 >= again["position"] >= found["position"] > 50
        assert listed["queue"]["position"] is not None
        assert shapes.PaymentList.model_validate({"payments": [listed], "next_cursor": None})


@pytest.mark.parametrize("state", ["PENDING", "UNKNOWN"])
async def test_who_waits_for_a_retry_has_the_place_that_it_will_have_when_it_is_due(state: str) -> None:
    of = world()
    seen(of.queues, "simulator", 100)
    async with of.client() as client:
        retry_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=9)
        of.payments.rows[ID] = row(state=state, attempt=1, retry_at=retry_at)
        found = (await client.get(f"/v1/payments/{ID}")).json()
        [listed] = (await client.get("/v1/payments")).json()["payments"]
    for queue in (found["queue"], listed["queue"]):
        assert queue["position"] == pytest.approx(1 + 9 * 10, abs=15)  # ten a second go before its time
        assert 5 < queue["eta_s"] <= 9.1
        assert dt.datetime.fromisoformat(queue["eta"]) >= retry_at - dt.timedelta(milliseconds=20)
        assert queue["reason"] is None
    assert found["retry_at"] == retry_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("changes", [{}, {"retry_at": dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)}])
async def test_a_retry_that_nobody_sees_has_no_place(changes: dict[str, Any]) -> None:
    """Its event was written before events said when, or it is late, or told of already."""
    of = world()
    seen(of.queues, "simulator", 100)
    async with of.client() as client:
        of.payments.rows[ID] = row(state="PENDING", attempt=1, **changes)
        queue = (await client.get(f"/v1/payments/{ID}")).json()["queue"]
    assert queue == {"position": None, "eta": None, "eta_s": None, "reason": "retry-scheduled"}


@pytest.mark.parametrize("state", ["PROCESSING", "REVIEW", "COMPLETED", "FAILED", "CANCELLED"])
async def test_who_waits_for_no_call_has_no_place(state: str) -> None:
    of = world()
    seen(of.queues, "simulator", 100)
    async with of.client() as client:
        of.payments.rows[ID] = row(state=state)
        assert (await client.get(f"/v1/payments/{ID}")).json()["queue"] is None


async def test_a_lane_takes_no_more_than_it_serves_within_its_maximum_wait() -> None:
    of = world()
    rate = nominal(LANES["other"])
    async with of.client() as client:
        assert (await post(client, "before", lane="other")).status_code == 201  # nothing is known yet
        seen(of.queues, "other", round(rate * 90 / 2))
        refused = await post(client, lane="other")
        problem(refused, 503, "lane-queue-too-long")
        assert 15 <= int(refused.headers["retry-after"]) <= 31
        repeat = await post(client, "before", lane="other")
        assert (repeat.status_code, repeat.headers["idempotency-replayed"]) == (409, "true")
        problem(await post(client, "before", lane="other", amount="9.00"), 422, "idempotency-key-reused",
                "Idempotency-Key")  # fmt: skip
        assert (await post(client, "elsewhere")).status_code == 201
        seen(of.queues, "other", round(rate * 90 / 2), paused=BREAKER_OPEN)
        problem(await post(client, lane="other"), 503, "lane-queue-too-long")
        seen(of.queues, "other", round(rate * 50 / 2))
        assert (await post(client, lane="other")).status_code == 201
    assert len(of.kafka.records) == 3
    assert of.keys.entries.keys() >= {ID}


async def test_lanes_are_told_one_and_all() -> None:
    of = world()
    async with of.client() as client:
        unknown = (await client.get("/v1/lanes/simulator")).json()
        assert (unknown["backlog"], unknown["breaker"], unknown["drained"]["reason"]) == (None, "unknown", "unknown")
        seen(of.queues, "simulator", 100, due=3)
        seen(of.queues, "other", 100, paused=BREAKER_OPEN)
        lanes = (await client.get("/v1/lanes")).json()["lanes"]
        assert [lane["lane"] for lane in lanes] == ["simulator", "other"]
        for lane in lanes:
            assert lane.keys() == lane_resources.EXAMPLE.keys()
            assert lane["drained"].keys() == lane_resources.EXAMPLE["drained"].keys()
        assert (lanes[0]["backlog"], lanes[0]["due"], lanes[0]["rate_per_s"]) == (203, 3, 10.0)
        assert 10 < lanes[0]["drained"]["eta_s"] <= 20.3
        assert lanes[0]["oldest_waiting_s"] > 0
        assert (lanes[1]["drained"]["eta"], lanes[1]["drained"]["reason"]) == (None, BREAKER_OPEN)
        assert (await client.get("/v1/lanes/other")).json()["max_wait_s"] == 60
        problem(await client.get("/v1/lanes/none"), 404, "no-such-lane")
        writer = of.keyring.add(*key_of("shop", scopes=frozenset({"payments:write"})))
        problem(await client.get("/v1/lanes", headers=writer), 403, "missing-scope")
        problem(await client.get("/v1/lanes/other", headers=writer), 403, "missing-scope")


def test_a_payment_of_a_lane_that_is_gone_is_told_without_a_place() -> None:
    none = Queues(LANES)
    payment = {"lane": "gone", "status": "PENDING", "attempts": 0, "created_at": "2026-01-31T12:00:00.000Z"}
    command = commands.create(
        {**BODY, "lane": "gone"}, idempotency_key=KEY, lanes=frozenset({"gone"}), accepted_at_ms=0
    )
    assert none.of(payment) is None
    assert none.accepted(b'{"a":1}', command) == b'{"a":1,"queue":null}'
    assert none.refusal(command) is None
    assert orjson.loads(with_queue(b'{"a":1}', {"position": 1})) == {"a": 1, "queue": {"position": 1}}


def two_thousand_in_the_last_line(of: Any) -> None:
    line, empty = Line((1005, 1005), (5, 5)), Line((5, 5), (5, 5))
    last = LEVEL_OF.index(3) + topics.queue_number(3, "shop")
    lines = tuple(line if number == last else empty for number in range(len(LEVEL_OF)))
    queue = of.queues.waiting["simulator"]
    queue.observe(Sample(time.monotonic(), time.time_ns() // 1_000_000, lines), queue.counted())


async def test_who_has_much_waiting_is_told_of_the_line_that_it_stands_in() -> None:
    """Nobody else's thousand, further down, go before a merchant that sends its first; its own do, before its next."""
    of = world()
    two_thousand_in_the_last_line(of)
    async with of.client() as client:
        assert (await post(client, "first")).json()["queue"]["position"] == 1
        of.queues._ahead["simulator"]["shop"] = 2000.0
        assert (await post(client, "next")).json()["queue"]["position"] > 1500


@pytest.mark.parametrize(("level", "position"), [(0, 1), (3, 2000), (None, 2000), (4, 2000)])
async def test_a_payment_is_told_of_the_line_that_intake_has_put_it_in(level: int | None, position: int) -> None:
    """The first of a merchant's two thousand stands in the first line; where none is named, by what it has waiting."""
    of = world()
    two_thousand_in_the_last_line(of)
    of.queues._ahead["simulator"]["shop"] = 2000.0
    now = dt.datetime.now(dt.UTC)
    of.payments.rows[ID] = row(state="PENDING", attempt=0, level=level, accepted_at=now)
    async with of.client() as client:
        found = (await client.get(f"/v1/payments/{ID}")).json()["queue"]
        again = (await post(client)).json()["queue"]
        [listed] = (await client.get("/v1/payments")).json()["payments"]
    for queue in (found, again, listed["queue"]):
        assert queue["position"] == pytest.approx(position, abs=15)


def test_each_merchant_has_one_line_at_each_level() -> None:
    names = topics.queue_topics("x")
    for merchant in ("a", "b", "c", "d", "e"):
        for level in range(len(topics.LEVELS)):
            number = topics.queue_number(level, merchant)
            assert names[queues._line(level, merchant)] == topics.queue_topic("x", level, number)
    assert len(names) == len(LEVEL_OF)
