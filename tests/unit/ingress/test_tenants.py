"""Who may call: keys, scopes, modes, merchants; and how long a key is believed with and without PostgreSQL."""

from __future__ import annotations

import asyncio
import hmac
import uuid
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from ingress import tenants
from ingress.presence import Away
from ingress.problem import Problem
from ingress.tenants import FRESH_S, INVALID, REFRESH_S, Caller, Key, Reach, Tenants
from schemas import api_key, identity
from schemas.api_key import SCOPES, Mode
from tests.unit.ingress.fakes import (
    API_KEY,
    BODY,
    ID,
    KEY,
    PEPPER,
    REACH,
    MemoryKeyring,
    World,
    key_of,
    post,
    problem,
    row,
)  # fmt: skip

GRACE_S = 900.0
MINE, STORED = key_of("shop")
BEARER = ("authorization", f"Bearer {MINE}")
CREATE = {"Idempotency-Key": KEY}


class World_:  # noqa: N801 - one keyring, one clock, one Tenants
    """A keyring on a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.keyring = MemoryKeyring()
        self.tenants = Tenants(self.keyring, PEPPER, grace_s=GRACE_S, clock=lambda: self.now)

    async def ask(self, key: str = MINE) -> Caller:
        return await self.tenants.authenticate([f"Bearer {key}".encode()])

    async def told(self) -> None:
        """Until what was asked for beside the requests is known, however long that takes."""
        while self.tenants._loading:
            await asyncio.sleep(0)

    async def refused(self, key: str = MINE) -> Problem:
        with pytest.raises(Problem) as found:
            await self.ask(key)
        return found.value


def other_secret(key: str) -> str:
    return key[:-4] + ("AAAA" if key[-4:] != "AAAA" else "BBBA")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "missing-api-key"),
        ([("authorization", "")], "missing-api-key"),
        ([("authorization", f"Basic {MINE}")], "missing-api-key"),
        ([BEARER, BEARER], "missing-api-key"),
        ([("authorization", "Bearer")], "invalid-api-key"),
        ([("authorization", "Bearer x")], "invalid-api-key"),
        ([("authorization", f"Bearer {other_secret(MINE)}")], "invalid-api-key"),
        ([("authorization", f"Bearer {MINE.replace('test', 'live')}")], "invalid-api-key"),
        ([("authorization", f"Bearer {MINE}, {MINE}")], "invalid-api-key"),
        ([("authorization", "Bearer " + "k" * 4000)], "invalid-api-key"),
        ([("authorization", b"Bearer \xff\xfe")], "invalid-api-key"),
        ([("authorization", f"Bearer {key_of('stranger')[0]}")], "invalid-api-key"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/payments"), ("GET", f"/v1/payments/{ID}"), ("GET", "/v1/nowhere"), ("DELETE", "/v1/payments")],
)
async def test_nothing_under_v1_is_answered_without_a_valid_key(
    headers: list[tuple[str, Any]], code: str, method: str, path: str
) -> None:
    world = World()
    transport = httpx2.ASGITransport(world.app())
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        answer = await client.request(method, path, headers=headers)
    problem(answer, 401, code, "Authorization")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="kifiya"')
    assert world.kafka.records == []
    assert "kfy_" not in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/registry/subjects"])
async def test_what_machines_and_readers_ask_stays_open(path: str) -> None:
    transport = httpx2.ASGITransport(World().app())
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.get(path)).status_code == 200


async def test_unknown_malformed_and_revoked_keys_get_the_same_answer_for_the_same_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World_()
    revoked, stored = key_of("revoked")
    world.keyring.add(revoked, replace(stored, ends_at=world.now))
    presented = [key_of("nobody")[0], "no key at all", revoked, other_secret(MINE)]
    digests: list[bytes] = []
    compared: list[tuple[Any, Any]] = []

    def digest(pepper: bytes, presented: bytes) -> bytes:
        digests.append(presented)
        return hmac.digest(pepper, presented, "sha256")

    def compare(mine: bytes, theirs: bytes) -> bool:
        compared.append((mine, theirs))
        return hmac.compare_digest(mine, theirs)

    monkeypatch.setattr(api_key, "digest", digest)
    monkeypatch.setattr(tenants, "compare_digest", compare)
    problems = [await world.refused(key) for key in presented]
    assert all(found is problems[0] for found in problems)
    assert digests == [key.encode() for key in presented]
    assert len(compared) == 4
    assert len(world.keyring.asked) == 4
    assert all(len(theirs) == 32 for _, theirs in compared)


@pytest.mark.parametrize(
    "presented",
    [b"kfy_test_%." + b"%" * 43, b"kfy_test_" + b"_" * 16 + b"." + b"_" * 43, b"' OR '1'='1", b"x" * 15_000, b"\x00",
     b"kfy_test_0123456789abcdef", b"\xff\xfe", MINE.upper().encode(), MINE.encode() + b"x", MINE.encode()[:-1],
     MINE.encode() + b" " + MINE.encode(), b"kfy_live_" + MINE.encode()[9:]],
)  # fmt: skip
async def test_nothing_of_a_hostile_key_but_a_well_formed_id_reaches_a_store(presented: bytes) -> None:
    world = World_()
    with pytest.raises(Problem) as found:
        await world.tenants.authenticate([b"Bearer " + presented])
    assert found.value is INVALID
    assert set(world.keyring.asked) <= {"0" * 16, STORED.caller.key_id}


async def test_a_busy_key_is_looked_up_beside_the_requests_and_an_idle_one_before() -> None:
    world = World_()
    for _ in range(100):
        assert await world.ask() == STORED.caller
    assert world.keyring.asked == [STORED.caller.key_id]
    world.now += REFRESH_S
    world.keyring.away = True  # who waited for it would be refused, or wait
    assert await world.ask() == STORED.caller
    await world.told()
    assert len(world.keyring.asked) == 2
    world.keyring.away = False
    assert await world.ask() == STORED.caller
    await world.told()
    world.now += FRESH_S - 0.1
    await world.ask()
    await world.told()
    assert len(world.keyring.asked) == 4
    world.now += FRESH_S
    world.keyring.keys.clear()
    await world.refused()


async def test_a_revocation_counts_after_five_seconds_at_the_latest_and_at_once_when_told() -> None:
    world = World_()
    await world.ask()
    world.keyring.keys.clear()
    world.now += FRESH_S
    assert (await world.refused()).code == "invalid-api-key"
    world = World_()
    await world.ask()
    world.keyring.keys.clear()
    world.tenants.forget(STORED.caller.key_id)
    assert (await world.refused()).code == "invalid-api-key"


async def test_what_was_read_before_a_change_and_came_after_it_is_not_believed() -> None:
    world = World_()
    early = asyncio.create_task(world.ask())
    while not world.keyring.asked:
        await asyncio.sleep(0)
    world.tenants.forget(STORED.caller.key_id)
    assert await early == STORED.caller  # it came before the change
    world.keyring.keys.clear()
    assert (await world.refused()).code == "invalid-api-key"


async def test_a_key_that_was_rotated_ends_when_its_time_has_come() -> None:
    world = World_()
    world.keyring.add(MINE, replace(STORED, ends_at=world.now + 2))
    assert await world.ask() == STORED.caller
    world.now += 2
    assert (await world.refused()).code == "invalid-api-key"


async def test_without_postgresql_known_keys_go_on_for_a_while_and_others_are_told_to_wait() -> None:
    world = World_()
    await world.ask()
    stranger = key_of("stranger")[0]
    world.keyring.away = True
    found = await world.refused(stranger)
    assert (found.status, found.code, found.retry_after_s) == (503, "keys-away", 1)
    for later_s in (FRESH_S, 60.0, GRACE_S - FRESH_S - 61):
        world.now += later_s
        assert await world.ask() == STORED.caller
    assert (await world.refused(other_secret(MINE))).code == "invalid-api-key"
    world.now += 2
    assert (await world.refused()).code == "keys-away"
    world.keyring.away = False
    assert await world.ask() == STORED.caller


async def test_a_thousand_requests_that_need_one_key_ask_for_it_once() -> None:
    world = World_()
    found = await asyncio.gather(*(world.ask() for _ in range(1000)))
    assert set(found) == {STORED.caller}
    assert len(world.keyring.asked) == 1


async def test_a_request_that_leaves_takes_no_other_ones_answer_along() -> None:
    world = World_()
    first, second = asyncio.create_task(world.ask()), asyncio.create_task(world.ask())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == STORED.caller


async def test_strangers_push_no_known_key_out_and_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "MOST", 10)
    world = World_()
    await world.ask()
    for number in range(50):
        await world.refused(key_of(f"stranger-{number}")[0])
    world.keyring.away = True
    assert await world.ask() == STORED.caller
    assert len(world.tenants._strangers) == 10
    world.keyring.away = False
    for number in range(50):
        written, key = key_of(f"merchant-{number}")
        world.keyring.add(written, key)
        await world.ask(written)
    assert len(world.tenants._known) == 10


@pytest.mark.parametrize(
    ("scopes", "writes", "reads"),
    [
        (SCOPES, 201, 200), (["payments:write"], 201, 403), (["payments:read"], 403, 404), (["ops"], 403, 403),
    ],
)  # fmt: skip
async def test_a_missing_scope_is_named(scopes: list[str], writes: int, reads: int) -> None:
    world = World()
    headers = world.keyring.add(*key_of("shop", scopes=frozenset(scopes)))
    async with world.client() as client:
        created = await client.post("/v1/payments", json=BODY, headers={**CREATE, **headers})
        found = await client.get(f"/v1/payments/{ID}", headers=headers)
    assert (created.status_code, found.status_code) == (writes, reads)
    for answer, scope in ((created, "payments:write"), (found, "payments:read")):
        if answer.status_code == 403:
            assert scope in problem(answer, 403, "missing-scope")["detail"]
            assert f'scope="{scope}"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("named", ["(absent)", None, "shop"])
async def test_the_merchant_is_the_keys_and_may_be_named(named: str | None) -> None:
    world = World()
    body = {name: value for name, value in {**BODY, "merchant_id": named}.items() if value != "(absent)"}
    async with world.client() as client:
        answer = await client.post("/v1/payments", json=body, headers=CREATE)
    assert (answer.status_code, answer.json()["merchant_id"]) == (201, "shop")
    [record] = world.kafka.records
    assert (record.merchant_id, record.payment_id) == ("shop", identity.payment_id("shop", KEY))


@pytest.mark.parametrize("named", ["other", "SHOP", "", " shop", 1, ["shop"], {"shop": 1}, True])
async def test_another_merchant_in_the_body_is_refused(named: object) -> None:
    world = World()
    async with world.client() as client:
        problem(await post(client, merchant_id=named), 422, "invalid-field", "merchant_id")
    assert world.kafka.records == []


@pytest.mark.parametrize("known_to", ["redis", "postgres"])
async def test_another_merchants_payment_is_not_there(known_to: str) -> None:
    world = World()
    thief = world.keyring.add(*key_of("thief"))
    async with world.client() as client:
        await post(client)
        if known_to == "postgres":
            world.payments.rows[ID] = row()
        assert (await client.get(f"/v1/payments/{ID}")).status_code == 200
        absent = await client.get(f"/v1/payments/{uuid.uuid4()}", headers=thief)
        stolen = await client.get(f"/v1/payments/{ID}", headers=thief)
        problem(stolen, 404, "no-such-payment")
        assert stolen.content == absent.content
        same_key = await client.post("/v1/payments", json={**BODY, "merchant_id": "thief"}, headers={**CREATE, **thief})
    assert same_key.status_code == 201
    assert same_key.json()["payment_id"] != ID


def caller_of(mode: Mode) -> Caller:
    return Caller("shop", mode, frozenset(SCOPES), "k")


@pytest.mark.parametrize(
    ("mode", "lane", "default", "told"),
    [
        (Mode.TEST, None, "simulator", ""), (Mode.TEST, "simulator", "bank", ""), (Mode.LIVE, "bank", "simulator", ""),
        (Mode.LIVE, None, "bank", ""),
        (Mode.TEST, "bank", "simulator", "takes live payments only, and this is a test key"),
        (Mode.LIVE, "simulator", "bank", "takes test payments only, and this is a live key"),
        (Mode.TEST, None, "bank",
         "is required: the default lane bank takes live payments only, and this is a test key"),
    ],
)  # fmt: skip
def test_a_key_reaches_the_lanes_of_its_mode(mode: Mode, lane: str | None, default: str, told: str) -> None:
    reach = Reach(frozenset({"simulator", "bank"}), frozenset({"simulator"}), default)
    if not told:
        reach.check(caller_of(mode), lane)
        return
    with pytest.raises(Problem) as found:
        reach.check(caller_of(mode), lane)
    assert (found.value.status, found.value.field, found.value.detail) == (422, "lane", told)


@pytest.mark.parametrize(
    ("mode", "lane", "status"), [("test", "bank", 422), ("live", "bank", 201), ("live", None, 422)]
)
async def test_test_and_live_payments_never_share_a_lane(mode: str, lane: str | None, status: int) -> None:
    world = World()
    headers = world.keyring.add(*key_of("shop", Mode(mode)))
    assert REACH.default == "simulator"
    async with world.client() as client:
        answer = await client.post("/v1/payments", json={**BODY, "lane": lane}, headers={**CREATE, **headers})
    assert answer.status_code == status
    if status == 422:
        problem(answer, 422, "lane-of-other-mode", "lane")
        assert world.kafka.records == []


async def test_a_key_never_stands_in_an_answer_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    async with world.client() as client:
        said = [(await post(client)).text, (await client.get(f"/v1/payments/{ID}")).text]
    assert API_KEY not in "".join(said) + caplog.text
    assert API_KEY.partition(".")[2] not in repr(STORED)


async def test_a_store_that_fails_in_another_way_is_a_defect_and_poisons_nothing() -> None:
    world = World_()
    calls = iter([ZeroDivisionError(), Away("x"), None])

    async def find(_: str) -> Key | None:
        error = next(calls)
        if error is not None:
            raise error
        return STORED

    world.keyring.find = find  # type: ignore[method-assign,assignment]  # a store that is broken
    with pytest.raises(ZeroDivisionError):
        await world.ask()
    assert (await world.refused()).code == "keys-away"
    assert await world.ask() == STORED.caller
    assert api_key.key_id(MINE.encode()) == STORED.caller.key_id
