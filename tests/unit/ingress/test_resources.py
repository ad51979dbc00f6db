"""Lists, audit trails and cancels over memory stores: whose payments they show, and what is published."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest

from schemas.api_key import SCOPES
from schemas.records import CommandType, PaymentCommand, State
from tests.unit.ingress.fakes import ID, World, key_of, post, problem, row

AT = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
STEP: dict[str, Any] = {
    "type": "state_changed", "state": "PENDING", "attempt": 0, "call": None, "outcome": None, "reason": None,
    "detail": None, "provider_charge_id": None, "replay_id": None, "lane": "simulator", "at": AT, "sent_at_us": None,
    "traceparent": None,
    "topic": "payments.events", "partition": 3,
}  # fmt: skip


def calling(world: World, merchant: str, *scopes: str) -> dict[str, str]:
    """The header of a key of this merchant, with all scopes where none is named."""
    return world.keyring.add(*key_of(merchant, scopes=frozenset(scopes or SCOPES)))


def stored(world: World, count: int, **changes: Any) -> list[str]:
    """So many payments of the shop, two in each millisecond; their ids from the newest to the oldest."""
    ids = sorted(str(uuid.UUID(int=n)) for n in range(1, count + 1))
    for n, payment_id in enumerate(ids):
        at = AT + dt.timedelta(milliseconds=n // 2)
        world.payments.rows[payment_id] = row(payment_id=payment_id, accepted_at=at, **changes)
    return ids[::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_show_every_payment_once_from_the_newest_to_the_oldest(limit: int) -> None:
    world = World()
    ids = stored(world, 7)
    world.payments.rows[ID] = row(merchant_id="other")
    seen: list[str] = []
    async with world.client() as client:
        cursor: dict[str, str] = {}
        while True:
            answer = await client.get("/v1/payments", params={"limit": limit, **cursor})
            assert answer.status_code == 200, answer.text
            found = answer.json()
            assert len(found["payments"]) <= limit
            seen += [each["payment_id"] for each in found["payments"]]
            if found["next_cursor"] is None:
                break
            cursor = {"cursor": found["next_cursor"]}
    assert seen == ids


async def test_a_list_shows_payments_as_they_are_read_one_by_one() -> None:
    world = World()
    (payment_id,) = stored(world, 1, metadata='{"order": "1"}')
    async with world.client() as client:
        [found] = (await client.get("/v1/payments")).json()["payments"]
        assert found == (await client.get(f"/v1/payments/{payment_id}")).json()


async def test_a_wrong_parameter_is_named_and_nothing_is_read() -> None:
    world = World()
    async with world.client() as client:
        problem(await client.get("/v1/payments?limit=0"), 400, "invalid-parameter", "limit")
        problem(await client.get("/v1/payments?merchant_id=other"), 400, "invalid-parameter", "merchant_id")
        problem(await client.get(f"/v1/payments/{ID}/events?after=x"), 400, "invalid-parameter", "after")
    assert world.lists.asked == []


async def test_events_are_told_in_order_and_paged() -> None:
    world = World()
    world.payments.rows[ID] = row(version=3)
    world.lists.trail[ID] = [{**STEP, "version": version, "offset": 40 + version} for version in (1, 2, 3)]
    async with world.client() as client:
        whole = (await client.get(f"/v1/payments/{ID}/events")).json()
        assert {name: whole[name] for name in ("payment_id", "status", "version", "next_after")} == {
            "payment_id": ID, "status": "COMPLETED", "version": 3, "next_after": None,
        }  # fmt: skip
        assert [(each["version"], each["topic"], each["partition"], each["offset"]) for each in whole["events"]] == [
            (version, "payments.events", 3, 40 + version) for version in (1, 2, 3)
        ]
        first = (await client.get(f"/v1/payments/{ID}/events?limit=2")).json()
        assert (len(first["events"]), first["next_after"]) == (2, 2)
        rest = (await client.get(f"/v1/payments/{ID}/events?limit=2&after=2")).json()
        assert (rest["events"], rest["next_after"]) == (whole["events"][2:], None)


async def test_what_was_accepted_a_moment_ago_has_no_events_yet() -> None:
    world = World()
    async with world.client() as client:
        await post(client)
        found = (await client.get(f"/v1/payments/{ID}/events")).json()
    assert found == {"payment_id": ID, "status": "PENDING", "version": 0, "events": [], "next_after": None}


async def test_another_merchants_payment_is_as_none_at_all() -> None:
    world = World()
    world.payments.rows[ID] = row(state="PENDING")
    nobodys = str(uuid.uuid4())
    other = calling(world, "other")
    async with world.client() as client:
        for method, path in (("GET", "/events"), ("POST", "/cancel")):
            theirs = await client.request(method, f"/v1/payments/{ID}{path}", headers=other)
            none = await client.request(method, f"/v1/payments/{nobodys}{path}", headers=other)
            problem(theirs, 404, "no-such-payment")
            assert theirs.content == none.content
            problem(await client.request(method, f"/v1/payments/no-id{path}"), 404, "no-such-payment", "payment_id")
        assert (await client.get("/v1/payments", headers=other)).json() == {"payments": [], "next_cursor": None}
    assert world.kafka.records == []


async def test_a_key_without_the_right_reads_and_cancels_nothing() -> None:
    world = World()
    world.payments.rows[ID] = row(state="PENDING")
    async with world.client() as client:
        for method, path, scope in (
            ("GET", "", "payments:read"), ("GET", f"/{ID}/events", "payments:read"),
            ("POST", f"/{ID}/cancel", "payments:write"),
        ):  # fmt: skip
            others = [each for each in SCOPES if each != scope]
            answer = await client.request(method, f"/v1/payments{path}", headers=calling(world, "shop", *others))
            assert scope in problem(answer, 403, "missing-scope")["detail"]
    assert world.kafka.records == []


async def test_a_cancel_is_published_and_answered_with_the_payment_as_it_stands() -> None:
    world = World()
    async with world.client() as client:
        created = await post(client, metadata={"order": "1"})
        for _ in range(2):  # asked again, the same again: the stream knows
            answer = await client.post(f"/v1/payments/{ID}/cancel")
            assert (answer.status_code, answer.json()) == (202, created.json())
            assert answer.headers["location"] == f"/v1/payments/{ID}"
    for record in world.kafka.records[1:]:
        assert record.accepted_at_ms
        assert record == PaymentCommand(
            type=CommandType.CANCEL, payment_id=ID, merchant_id="shop", accepted_at_ms=record.accepted_at_ms
        )
    assert len(world.kafka.records) == 3


@pytest.mark.parametrize("state", [state for state in State if state is not State.PENDING])
async def test_a_cancel_that_comes_too_late_publishes_nothing(state: State) -> None:
    world = World()
    world.payments.rows[ID] = row(state=state.value)
    async with world.client() as client:
        answer = await client.post(f"/v1/payments/{ID}/cancel", content=b"{}")
        if state is State.CANCELLED:
            assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
        else:
            assert answer.status_code == 409
            assert answer.headers["content-type"] == "application/problem+json"
    assert world.kafka.records == []


async def test_a_cancel_takes_no_body() -> None:
    world = World()
    world.payments.rows[ID] = row(state="PENDING")
    async with world.client() as client:
        problem(await client.post(f"/v1/payments/{ID}/cancel", content=b'{"amount":"1"}'), 400, "invalid-json")
        problem(await client.post(f"/v1/payments/{ID}/cancel", content=b" " * 1025), 413, "too-large")
    assert world.kafka.records == []


async def test_what_is_away_is_said_and_nothing_is_promised() -> None:
    world = World()
    async with world.client() as client:
        await post(client)
        world.kafka_away()
        problem(await client.post(f"/v1/payments/{ID}/cancel"), 503, "kafka-away")
        world.lists.away = True
        problem(await client.get("/v1/payments"), 503, "store-away")
        problem(await client.get(f"/v1/payments/{ID}/events"), 503, "store-away")
        world.keys.away = world.payments.away = True
        problem(await client.post(f"/v1/payments/{ID}/cancel"), 503, "store-away")
