"""The simulator as a provider, and its adapter against it and against servers that behave worse."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from ops import trace
from ops.simulator.provider import Provider
from ops.simulator.server import Simulator
from ops.simulator.tokens import TOKENS
from schemas.lanes import Lane
from schemas.records import PaymentTask
from streams.errors import PermitExpired
from streams.providers.port import Outcome, OutcomeKind
from streams.providers.simulator import SimulatorProvider
from tests.integration.roles import simulator, task_of

CALL_S = 0.4


@dataclass
class Served:
    """A simulator in this process."""

    url: str
    provider: Provider


@asynccontextmanager
async def served(limit: int = 1000, window_s: float = 1.0, latency_s: float = 0.0) -> AsyncIterator[Served]:
    provider = Provider(limit, int(window_s * 1e9), time.monotonic_ns)
    async with Simulator(provider, latency_s).listening("127.0.0.1", 0) as port:
        yield Served(f"http://127.0.0.1:{port}", provider)


@dataclass
class Client:
    """The adapter, and how often it asked for the right to write."""

    adapter: SimulatorProvider
    asked: int = 0

    async def _wait(self) -> None:
        self.asked += 1

    async def charge(self, task: PaymentTask, before: Callable[[], Awaitable[None]] | None = None) -> Outcome:
        return await self.adapter.charge(task, idempotency_key=task.payment_id, before_write=before or self._wait)

    async def status(self, task: PaymentTask) -> Outcome:
        return await self.adapter.status(task, idempotency_key=task.payment_id, before_write=self._wait)


@asynccontextmanager
async def client_of(url: str, call_s: float = CALL_S) -> AsyncIterator[Client]:
    async with SimulatorProvider(Lane(name="x", url=url, call_timeout_ms=int(call_s * 1000))) as adapter:
        yield Client(adapter)


def payment(token: str = "pm_approve") -> PaymentTask:
    return task_of("x", payment_method=token)


CASES: list[tuple[str, list[str], int]] = [
    ("pm_approve", ["approved", "approved"], 1),
    ("pm_decline", ["declined", "declined"], 0),
    ("pm_whatever", ["declined"], 0),
    ("pm_503_twice", ["retryable", "retryable", "approved"], 1),
    ("pm_500", ["unknown", "unknown"], 0),
    ("pm_500_stored", ["unknown", "unknown"], 1),
    ("pm_429", ["retryable", "approved"], 1),
    ("pm_timeout_charged", ["unknown", "approved"], 1),
    ("pm_timeout_not_charged", ["unknown", "approved"], 1),
    ("pm_late", ["unknown", "approved"], 1),
    ("pm_slow_5s", ["unknown"], 0),
    ("pm_garbage", ["unknown", "unknown"], 1),
    ("pm_reset", ["unknown", "approved"], 1),
    ("pm_huge", ["unknown"], 1),
    ("pm_mismatch", ["unknown"], 1),
]


@pytest.mark.parametrize(("token", "outcomes", "charged"), CASES)
async def test_each_token_leads_to_its_outcomes_and_asks_once_a_call(
    token: str, outcomes: list[str], charged: int
) -> None:
    async with served() as there, client_of(there.url) as client:
        task = payment(token)
        for number, expected in enumerate(outcomes, 1):
            begun = time.monotonic()
            assert (await client.charge(task)).kind.value == expected
            assert time.monotonic() - begun < CALL_S + 5
            assert client.asked == number == len(there.provider.log)
        approved = [charge for charge in there.provider.charges.values() if charge.status == "approved"]
        assert len(approved) == charged
        found = await client.status(task)
        truth = {"declined": OutcomeKind.DECLINED, "approved": OutcomeKind.APPROVED}
        known = there.provider.charges.get(task.payment_id)
        assert found.kind is (truth[known.status] if known else OutcomeKind.ABSENT)


async def test_a_late_charge_lands_once_whether_or_not_it_was_asked_for_again() -> None:
    async with served() as there, client_of(there.url) as client:
        left, asked = payment("pm_late"), payment("pm_late")
        for task in (left, asked):
            assert (await client.charge(task)).kind is OutcomeKind.UNKNOWN
            assert (await client.status(task)).kind is OutcomeKind.ABSENT  # which is why absent is not failed
        assert (await client.charge(asked)).kind is OutcomeKind.APPROVED
        async with asyncio.timeout(10):
            while (await client.status(left)).kind is OutcomeKind.ABSENT:
                await asyncio.sleep(0.1)
        assert [charge.reference for charge in there.provider.charges.values()] == [asked.payment_id, left.payment_id]


def test_every_token_of_the_sandbox_is_tried_above() -> None:
    assert {token for token, _, _ in CASES} - {"pm_whatever"} == set(TOKENS)


async def test_a_call_belongs_to_its_payments_trace() -> None:
    context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with served() as simulated, client_of(simulated.url) as client:
        for current in (None, context):
            trace.CURRENT.set(current)
            await client.charge(payment())
            await client.status(payment())
        trace.CURRENT.set(None)
        assert [seen.traceparent for seen in simulated.provider.log] == [None, None, context, context]


async def test_an_answer_without_end_costs_no_memory() -> None:
    """Ten answers of 100 MB, of which 64 KiB each are read."""
    async with simulator() as provider, client_of(provider.url, 5.0) as client:
        assert (await client.charge(payment("pm_huge"))).reason == "answer-too-large"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcomes = await asyncio.gather(*(client.charge(payment("pm_huge")) for _ in range(10)))
        assert {outcome.reason for outcome in outcomes} == {"answer-too-large"}
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


async def test_the_limit_is_kept_by_the_provider_and_what_it_refuses_counts() -> None:
    async with served(limit=2, window_s=0.3) as there, client_of(there.url) as client:
        first = [(await client.charge(payment())).kind for _ in range(3)]
        assert first == [OutcomeKind.APPROVED, OutcomeKind.APPROVED, OutcomeKind.RETRYABLE]
        refused = await client.charge(payment())
        assert (refused.reason, refused.retry_after_s) == ("rate-limited", 1.0)
        await asyncio.sleep(0.35)
        assert (await client.charge(payment())).kind is OutcomeKind.APPROVED


async def test_a_key_is_one_charge_whatever_comes_after() -> None:
    async with served(latency_s=0.1) as there, client_of(there.url) as client, httpx2.AsyncClient() as http:
        task = payment()
        twice = await asyncio.gather(client.charge(task), client.charge(task))
        assert sorted(outcome.kind.value for outcome in twice) in (["approved", "retryable"], ["approved", "approved"])
        assert (await client.charge(task)).provider_charge_id == (await client.status(task)).provider_charge_id
        other = await client.charge(task_of("x", payment_id=task.payment_id, amount_minor=9))
        assert (other.kind, other.reason) == (OutcomeKind.REJECTED, "http-422")
        assert len(there.provider.charges) == 1
        seen = (await http.get(f"{there.url}/observed")).json()
        assert [charge["reference"] for charge in seen["charges"]] == [task.payment_id]
        assert [call["key"] for call in seen["requests"]].count(task.payment_id) == 4
        assert all(call["arrived_ns"] > 0 and len(call["body_sha256"]) == 64 for call in seen["requests"])


async def test_a_request_whose_key_is_in_use_is_told_so() -> None:
    async with served() as there, client_of(there.url, 2.0) as client:
        task = payment("pm_slow_5s")
        slow = asyncio.create_task(client.charge(task))
        while not there.provider.in_use:
            await asyncio.sleep(0.01)
        second = await client.charge(task)
        assert (second.kind, second.reason) == (OutcomeKind.RETRYABLE, "key-in-use")
        slow.cancel()


@pytest.mark.parametrize(
    ("method", "path", "headers", "said", "status"),
    [
        ("POST", "/v1/charges", {}, {}, 400),
        ("POST", "/v1/charges", {"Idempotency-Key": "a b"}, {}, 400),
        ("POST", "/v1/charges", {"Idempotency-Key": "k"}, {}, 400),
        ("POST", "/v1/charges", {"Idempotency-Key": "k"}, [], 400),
        ("POST", "/v1/charges", {"Idempotency-Key": "k"}, {"amount_minor": True}, 400),
        ("POST", "/v1/charges", {"Idempotency-Key": "k"}, {"amount_minor": -1}, 400),
        ("POST", "/v1/charges", {"Idempotency-Key": "k"}, {"reference": "x" * 70_000}, 413),
        ("GET", "/v1/charges/none", {}, None, 404),
        ("GET", "/nowhere", {}, None, 404),
        ("DELETE", "/v1/charges", {}, None, 404),
        ("GET", "/healthz", {}, None, 200),
    ],
)
async def test_the_simulator_refuses_what_no_provider_would_take(
    method: str, path: str, headers: dict[str, str], said: Any, status: int
) -> None:
    good = {"reference": "r", "amount_minor": 1, "currency": "USD", "merchant_id": "m", "payment_method": "pm_approve"}
    body = good | said if isinstance(said, dict) and said else said
    async with served() as there, httpx2.AsyncClient(base_url=there.url) as http:
        answer = await http.request(method, path, headers=headers, json=body)
        assert answer.status_code == status
        assert there.provider.charges == {}


@dataclass
class Script:
    """A server that does with each request what the test says, and counts the requests that reached it whole."""

    act: Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[bool]]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().splitlines() if line.startswith(b"content-length")]
                length = int(lengths[0].split(b":")[1]) if lengths else 0
                self.requests.append(await reader.readexactly(length))
                if not await self.act(reader, writer, len(self.requests)):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()


def approve(body: bytes) -> bytes:
    asked = json.loads(body)
    said = {"id": "ch_1", "status": "approved", **{k: asked[k] for k in ("reference", "amount_minor", "currency")}}
    text = json.dumps(said).encode()
    return b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


async def test_a_connection_that_the_server_has_closed_meanwhile_costs_no_second_request() -> None:
    """Kept alive by its word, closed all the same: the client may see that before it writes, or not."""

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        writer.write(approve(script.requests[-1]))
        await writer.drain()
        return number % 2 == 0

    script = Script(act)
    async with scripted(script) as url, client_of(url) as client:
        outcomes = []
        for number in range(12):
            outcomes.append((await client.charge(payment())).kind)
            await asyncio.sleep(0.0 if number % 3 else 0.02)
        assert client.asked == 12
        assert len(script.requests) == outcomes.count(OutcomeKind.APPROVED) <= 12
        assert set(outcomes) <= {OutcomeKind.APPROVED, OutcomeKind.UNKNOWN}


async def test_a_connection_that_is_closed_while_the_slot_is_awaited_is_not_opened_anew() -> None:
    """The request is written into the closed one, or not at all: never a second time, outside of its permit."""
    writers: list[asyncio.StreamWriter] = []

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: int) -> bool:
        writers.append(writer)
        writer.write(approve(script.requests[-1]))
        await writer.drain()
        return True

    script = Script(act)
    asked = 0

    async def closed_meanwhile() -> None:
        nonlocal asked
        asked += 1
        writers[0].close()
        await asyncio.sleep(0.05)

    async with scripted(script) as url, client_of(url) as client:
        await client.charge(payment())
        outcome = await client.charge(payment(), closed_meanwhile)
        assert outcome.kind is OutcomeKind.UNKNOWN
        assert (asked, len(script.requests), script.connections) == (1, 1, 1)
        assert (await client.charge(payment())).kind is OutcomeKind.APPROVED


async def test_a_late_permit_writes_nothing_and_the_next_call_works() -> None:
    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: int) -> bool:
        writer.write(approve(script.requests[-1]))
        await writer.drain()
        return True

    async def late() -> None:
        raise PermitExpired("late")

    script = Script(act)
    async with scripted(script) as url, client_of(url) as client:
        for warm in (False, True):
            with pytest.raises(PermitExpired):
                await client.charge(payment(), late)
            assert len(script.requests) == int(warm)
            assert (await client.charge(payment())).kind is OutcomeKind.APPROVED


async def test_the_wait_for_the_slot_is_not_taken_from_the_calls_own_time() -> None:
    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: int) -> bool:
        await asyncio.sleep(CALL_S / 2)
        writer.write(approve(script.requests[-1]))
        await writer.drain()
        return True

    async def slot() -> None:
        await asyncio.sleep(CALL_S * 1.5)

    script = Script(act)
    async with scripted(script) as url, client_of(url) as client:
        assert (await client.charge(payment(), slot)).kind is OutcomeKind.APPROVED


async def test_a_redirect_is_not_followed() -> None:
    target = Script(lambda _, __, ___: asyncio.sleep(0, result=False))
    async with scripted(target) as elsewhere:

        async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: int) -> bool:
            writer.write(f"HTTP/1.1 307 X\r\nLocation: {elsewhere}/v1/charges\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return True

        script = Script(act)
        async with scripted(script) as url, client_of(url) as client:
            outcome = await client.charge(payment())
        assert (outcome.kind, outcome.reason) == (OutcomeKind.UNKNOWN, "http-307")
        assert (len(script.requests), target.requests, client.asked) == (1, [], 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 201 C",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["body", "head", "chunks"],
)
async def test_an_answer_that_trickles_is_given_up_in_time(answer: bytes) -> None:
    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: int) -> bool:
        writer.write(answer)
        for _number in range(200):
            await asyncio.sleep(0.05)
            writer.write(b"1\r\na\r\n" if b"chunked" in answer else b"x")
            await writer.drain()
        return False

    async with scripted(Script(act)) as url, client_of(url) as client:
        begun = time.monotonic()
        outcome = await client.charge(payment())
        assert (outcome.kind, outcome.reason) == (OutcomeKind.UNKNOWN, "timeout")
        assert time.monotonic() - begun < CALL_S + 5


async def test_where_nobody_listens_nothing_was_sent() -> None:
    async with client_of("http://127.0.0.1:9") as client:
        outcome = await client.charge(payment())
        assert (outcome.kind, outcome.reason, outcome.sent) == (OutcomeKind.RETRYABLE, "not-connected", False)
        assert client.asked == 0


async def test_cancelled_calls_leave_the_client_usable() -> None:
    async with served() as there, client_of(there.url, 5.0) as client, AsyncExitStack():
        hanging = [asyncio.create_task(client.charge(payment("pm_timeout_charged"))) for _ in range(40)]
        while len(there.provider.log) < 40:
            await asyncio.sleep(0.01)
        for call in hanging:
            call.cancel()
        await asyncio.wait(hanging)
        outcomes = await asyncio.gather(*(client.charge(payment()) for _ in range(100)))
        assert {outcome.kind for outcome in outcomes} == {OutcomeKind.APPROVED}
        assert client.asked == 140 == len(there.provider.log)
