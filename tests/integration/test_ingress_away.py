"""Redis, PostgreSQL and Kafka killed or hung under the ingress: answers stay bounded, and all are found again.

Runs on a stack of its own, as its parts are killed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
import redis.asyncio as redis

from ops.local.stack import ALL, Kind, Stack, running
from schemas import command as commands
from tests.integration import http_role
from tests.integration.http_role import Ingress, environment, ingress, prepare, published, until

BOUND_S = 2.0
KIND: Kind = "apache" if os.environ.get("TEST_STACK") == "apache" else "embedded"
pytestmark = pytest.mark.alone

MIXES = [
    pytest.param(frozenset(mix), id="+".join(mix), marks=[pytest.mark.long] if len(mix) == 2 else [])
    for size in (1, 2, 3)
    for mix in itertools.combinations(sorted(ALL), size)
]
"""Pairs of absences hold where one and all three do; they are proved in the longer run."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own() -> AsyncIterator[Stack]:
    async with running(KIND, overrides=False) as found:
        await prepare(found)
        yield found


def _children(pid: int) -> list[int]:
    """PostgreSQL's backends; each leads a session of its own."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Fault:
    """What happens to parts of the stack. ``end`` makes them serve again."""

    def __init__(self, stack: Stack, parts: frozenset[str], how: str) -> None:
        self._stack = stack
        self._parts = [part for name, part in stack.processes.items() if name.rstrip("0123456789-") in parts]
        self._pids = [pid for part in self._parts if part.pid for pid in (part.pid, *_children(part.pid))]
        self._kafka = "kafka" in parts
        self._how = how
        assert len(self._parts) >= len(parts), stack.processes

    def begin(self) -> None:
        if self._how == "killed":
            for part in self._parts:
                part.kill()
        else:
            for pid in self._pids:
                os.kill(pid, signal.SIGSTOP)

    async def end(self, role: Ingress | None = None) -> None:
        """The embedded broker comes back empty, and makes a topic of any shape for who asks for one: ``role`` is held
        until ours are there."""
        empty = self._how == "killed" and self._kafka and self._stack.kafka_dialect == "tansu"
        if role is not None and empty:
            role.process.send_signal(signal.SIGSTOP)
        try:
            if self._how == "killed":
                await asyncio.gather(*(part.restart() for part in self._parts))
            if empty:
                await prepare(self._stack)
        finally:
            if role is not None and empty:
                role.process.send_signal(signal.SIGCONT)
        if self._how != "killed":
            for pid in self._pids:
                os.kill(pid, signal.SIGCONT)


async def told_away(role: Ingress, missing: AbstractSet[str], degraded: AbstractSet[str]) -> None:
    async def check() -> bool:
        found = await role.readiness()
        if set(found["missing"]) != missing or set(found["degraded"]) - {"outbox"} != degraded:
            return False
        return bool(found["code"] == (503 if missing else 200))

    await until(check, f"missing {missing}, degraded {degraded}", 10)


async def taken(role: Ingress, key: str) -> httpx2.Response:
    """A create that is answered 201, or 409 with the payment. A broker that has just come back may fail a few."""

    async def check() -> httpx2.Response | None:
        answer = await role.post(key)
        assert answer.status_code in {201, 409, 503}, answer.text
        return answer if answer.headers["content-type"] == "application/json" else None

    found: httpx2.Response = await until(check, f"{key} is taken", 10)
    return found


async def rate(role: Ingress, count: int) -> tuple[Counter[int], float, float]:
    """This many creates at once: answers, the slowest and all together in seconds."""
    began = time.monotonic()
    answers = await asyncio.gather(*(role.timed_post() for _ in range(count)))
    took_s = time.monotonic() - began
    return Counter(answer.status_code for answer, _ in answers), max(seconds for _, seconds in answers), took_s


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lasting(own: Stack) -> AsyncIterator[Ingress]:
    """One process for all mixes: it bears one absence after the other."""
    async with ingress(environment(own)) as role:
        yield role


@pytest.mark.kafka
@pytest.mark.parametrize("how", ["killed", "hung"])
@pytest.mark.parametrize("mix", MIXES)
async def test_every_mix_of_absences_is_bounded_and_heals(
    own: Stack, lasting: Ingress, mix: frozenset[str], how: str
) -> None:
    accepted = 503 if mix >= {"kafka", "postgres"} else 201
    missing = frozenset({"kafka"}) if accepted == 503 else frozenset[str]()
    role, said_before = lasting, len(lasting.lines)
    await role.well()
    await role.become()
    known = await taken(role, "known")
    fault = Fault(own, mix, how)
    fault.begin()
    try:
        first, took_s = await role.timed_post("during")
        assert (first.status_code, took_s < BOUND_S) == (accepted, True), (first.text, took_s)
        if accepted == 503:
            assert int(first.headers["retry-after"]) >= 1
        await told_away(role, missing, mix - missing)
        for _ in range(3):
            codes, slowest_s, took_s = await rate(role, 100)
            assert codes == {accepted: 100}
            assert took_s < BOUND_S, (slowest_s, took_s)
        await check_reads(role, known.headers["location"], mix)
        await check_repeats(role, mix, accepted)
        told = (await role.http.get("/metrics")).text
        assert [part for part in mix if f'kifiya_ingress_present{{name="{part}"}} 0.0' not in told] == []
    finally:
        await fault.end(role)
    await role.well()
    await taken(role, "after")
    again = await taken(role, "during")
    assert (await role.http.get(again.headers["location"])).status_code == 200
    if "kafka" not in mix:
        counts = Counter(command.idempotency_key for command in await published(own, role.merchant))
        assert counts["after"] == 1
        assert counts["known"] == (3 if "redis" in mix else 1)
    assert {f"{part}-away" for part in mix} <= set(role.actions())
    assert len(role.lines) - said_before < 30, "a log line for each request"


async def check_reads(role: Ingress, location: str, mix: frozenset[str]) -> None:
    """The sink has not written it, so Redis alone knows the payment."""
    began = time.monotonic()
    found = await role.http.get(location)
    unknown = await role.http.get(f"/v1/payments/{uuid.uuid4()}")
    assert time.monotonic() - began < BOUND_S
    assert found.status_code == (503 if "redis" in mix else 200)
    assert unknown.status_code == (503 if mix & {"redis", "postgres"} else 404)


async def check_repeats(role: Ingress, mix: frozenset[str], accepted: int) -> None:
    """With Redis there, repeats are told in any case; without it by the outbox, or they are left for the stream."""
    again = await role.post("known")
    other = await role.post("known", amount="99.00")
    if "redis" not in mix:
        assert (again.status_code, other.status_code) == (409, 422)
    else:
        told = 422 if accepted == 201 and "kafka" in mix else accepted
        assert (again.status_code, other.status_code) == (accepted, told)


async def test_without_redis_the_database_tells_repeats(own: Stack) -> None:
    async with ingress(environment(own)) as role:
        await role.well()
        await role.post("order-1")
        [command] = await published(own, role.merchant)
        await http_role.store(own, command, commands.fingerprint(command))
        fault = Fault(own, frozenset({"redis"}), "killed")
        fault.begin()
        try:
            assert (await role.post("order-1")).json()["status"] == "COMPLETED"
            assert (await role.post("order-1", amount="1.00")).status_code == 422
            again = await role.http.get(f"/v1/payments/{command.payment_id}")
            assert again.json()["status"] == "COMPLETED"
        finally:
            await fault.end()
        assert (await role.post("order-1")).status_code == 409  # and Redis, now empty, learns it again
        assert len(await published(own, role.merchant)) == 1


@pytest.mark.kafka
async def test_what_was_accepted_under_a_restart_of_kafka_is_stored(own: Stack) -> None:
    """The embedded broker keeps nothing, so there only the way back is proved."""
    async with ingress(environment(own)) as role:
        await role.well()
        accepted: list[str] = []
        stop = asyncio.Event()

        async def client(name: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                key = f"{name}-{number}"
                while (answer := await role.post(key)).status_code == 503:
                    await asyncio.sleep(0.05)
                assert answer.status_code == 201, answer.text
                accepted.append(key)

        clients = [asyncio.create_task(client(name)) for name in range(8)]

        async def some(count: int) -> None:
            async def check() -> bool:
                return len(accepted) >= count

            await until(check, f"{count} accepted")

        await some(50)
        fault = Fault(own, frozenset({"kafka"}), "killed")
        fault.begin()
        await told_away(role, set(), {"kafka"})
        await fault.end(role)
        back = len(accepted) + len(clients)
        await some(back + 100)
        stop.set()
        await asyncio.gather(*clients)
        survivors = set(accepted) if own.kafka_dialect == "apache" else set(accepted[back:])

        async def stored() -> bool:
            return survivors <= {command.idempotency_key for command in await published(own, role.merchant)}

        await until(stored, "all that was accepted is in Kafka, what the outbox took, too")


async def test_a_flush_of_redis_mid_burst_publishes_no_more_than_once_more(own: Stack) -> None:
    """The scripts are gone too; they are loaded again."""
    client = redis.from_url(own.redis_url)
    async with ingress(environment(own)) as role:
        await role.well()
        assert (await role.post("order-1")).status_code == 201
        await client.flushall()
        await client.script_flush()
        assert (await role.post("order-1")).status_code == 201
        assert (await role.post("order-1")).status_code == 409
        assert (await role.post("order-2")).status_code == 201
        assert [action for action in role.actions() if action.endswith("-away")] == []
    await client.aclose()


async def test_a_full_redis_that_refuses_writes_stops_no_payment(own: Stack) -> None:
    client = redis.from_url(own.redis_url)
    async with ingress(environment(own)) as role:
        await role.well()
        await client.config_set("maxmemory", "1")
        try:
            codes, _, took_s = await rate(role, 50)
            assert codes == {201: 50}
            assert took_s < BOUND_S
        finally:
            await client.config_set("maxmemory", "0")
        assert (await role.post("order-1")).status_code == 201
        assert (await role.post("order-1")).status_code == 409
    await client.aclose()


async def test_tables_that_are_missing_leave_keys_unknown_and_are_noticed_when_they_come() -> None:
    async with running("embedded", overrides=False) as fresh:
        database, fresh.database_url = fresh.database_url, ""
        await prepare(fresh)
        fresh.database_url = database
        async with ingress(environment(fresh)) as role:
            await told_away(role, set(), {"postgres"})
            answer = await role.post("order-1")
            assert (answer.status_code, answer.json()["code"]) == (503, "keys-away")
            await prepare(fresh)
            await role.become()
            await role.well()
            assert (await role.post("order-1")).status_code == 201


async def test_a_topic_that_is_missing_is_not_ready() -> None:
    async with running("embedded", overrides=False) as fresh, ingress(environment(fresh)) as role:
        await told_away(role, {"kafka"}, {"postgres"})
        answer, took_s = await role.timed_post()
        assert (answer.status_code, took_s < BOUND_S) == (503, True)
        await prepare(fresh)
        await role.become()
        await role.well()
        assert (await taken(role, "order-1")).status_code == 201
