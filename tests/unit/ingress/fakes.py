"""Memory stand-ins for Redis, PostgreSQL and Kafka, each of which can be away, and the app over them."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI

from ingress.acceptance import Acceptance
from ingress.app import assemble
from ingress.delivery import Delivery
from ingress.filters import Filters, Place
from ingress.finals import Finals
from ingress.gate import Gate
from ingress.health import Readiness
from ingress.idempotency import Claim, Standing
from ingress.listing import Page
from ingress.outbox import Full
from ingress.payments import Replay
from ingress.presence import Away
from ingress.queues import Queues
from ingress.rates import Rates
from ingress.tenants import Caller, Key, Reach, Tenants
from ops.kafka.clients import Message, PublishTimedOut
from schemas import api_key, codec, identity
from schemas import command as commands
from schemas.api_key import SCOPES, Mode
from schemas.lanes import Lane
from schemas.records import PaymentCommand, PaymentResult

BODY: dict[str, Any] = {"merchant_id": "shop", "amount": "12.50", "currency": "USD", "payment_method": "pm_approve"}
KEY = "order-1001"
ID = identity.payment_id("shop", KEY)
LANES = frozenset({"simulator", "other", "bank"})
REACH = Reach(LANES, sandbox=frozenset({"simulator", "other"}), default="simulator")
PEPPER = b"a pepper of the tests"


def key_of(merchant: str, mode: Mode = Mode.TEST, scopes: frozenset[str] = frozenset(SCOPES)) -> tuple[str, Key]:
    """A key of this merchant, the same at each call, and what is stored of it."""
    seed = hashlib.sha256(f"{merchant} {mode} {sorted(scopes)}".encode()).digest()
    key_id, written = api_key.write(mode, seed[:8], seed)
    return written, Key(api_key.digest(PEPPER, written.encode()), Caller(merchant, mode, scopes, key_id))


API_KEY, _STORED = key_of("shop")
AUTHORIZED = {"Authorization": f"Bearer {API_KEY}"}


@dataclass
class MemoryKeyring:
    """The keys in PostgreSQL; ``asked`` are the ids that were looked up."""

    away: bool = False
    keys: dict[str, Key] = field(default_factory=lambda: {_STORED.caller.key_id: _STORED})
    asked: list[str] = field(default_factory=list)

    async def find(self, key_id: str) -> Key | None:
        self.asked.append(key_id)
        await asyncio.sleep(0)
        if self.away:
            raise Away("postgres-keys is away")
        return self.keys.get(key_id)

    def add(self, written: str, key: Key) -> dict[str, str]:
        """Store the key; the header that presents it."""
        self.keys[key.caller.key_id] = key
        return {"Authorization": f"Bearer {written}"}


@dataclass
class MemoryKeys:
    """What Redis does, without its clock: a lease lasts until it is given back."""

    away: bool = False
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    leases: int = 0

    async def claim(self, payment_id: str, fingerprint: str) -> Claim:
        found = await self.look(payment_id, fingerprint)
        if found.standing is not Standing.NEW:
            return found
        self.leases += 1
        self.entries[payment_id] = {"fingerprint": fingerprint, "lease": self.leases}
        return Claim(Standing.NEW, lease=self.leases)

    async def look(self, payment_id: str, fingerprint: str) -> Claim:
        await self._answer()
        entry = self.entries.get(payment_id)
        if entry is None:
            return Claim(Standing.NEW)
        if entry["fingerprint"] != fingerprint:
            return Claim(Standing.CONFLICT)
        if "document" in entry:
            return Claim(Standing.PUBLISHED, document=entry["document"])
        return Claim(Standing.BUSY, wait_ms=1500) if entry["lease"] else Claim(Standing.NEW)

    async def published(self, payment_id: str, fingerprint: str, document: bytes) -> None:
        await self._answer()
        self.entries[payment_id] = {"fingerprint": fingerprint, "document": document}

    async def release(self, payment_id: str, lease: int) -> None:
        await self._answer()
        if self.entries.get(payment_id, {}).get("lease") == lease:
            self.entries[payment_id]["lease"] = 0

    async def document(self, payment_id: str) -> bytes | None:
        await self._answer()
        found: bytes | None = self.entries.get(payment_id, {}).get("document")
        return found

    async def ping(self) -> None:
        await self._answer()

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Away("redis is away")


@dataclass
class MemoryShared:
    """The processes' common counts of requests."""

    away: bool = False
    counts: dict[tuple[str, int, int], int] = field(default_factory=dict)

    async def spend(self, merchant_id: str, window: tuple[int, int], count: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        if self.away:
            raise Away("redis is away")
        seconds, number = window
        total = self.counts.get((merchant_id, seconds, number), 0) + count
        self.counts[merchant_id, seconds, number] = total
        return total, self.counts.get((merchant_id, seconds, number - 1), 0)


@dataclass
class MemoryPayments:
    """What the sink has written."""

    away: bool = False
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def find(self, payment_id: str, merchant_id: str) -> Mapping[str, Any] | None:
        await asyncio.sleep(0)
        if self.away:
            raise Away("postgres is away")
        row = self.rows.get(payment_id)
        return row if row is not None and row["merchant_id"] == merchant_id else None

    async def ping(self) -> None:
        await self.find("", "")


@dataclass
class MemoryKafka:
    """Takes records; ``error`` is what it does instead, ``gate`` holds acks back until it is set."""

    error: Exception | None = None
    gate: asyncio.Event | None = None
    records: list[PaymentCommand] = field(default_factory=list)
    headers: list[dict[str, bytes]] = field(default_factory=list)

    async def publish(self, message: Message, timeout_s: float) -> None:
        assert message.value is not None
        assert 0 < timeout_s <= 2
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.records.append(codec.decode(message.value, PaymentCommand))
        self.headers.append(dict(message.headers))

    async def ping(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class MemoryOutbox:
    """What waits for Kafka, in order; ``full`` has no room."""

    away: bool = False
    full: bool = False
    rows: list[Message] = field(default_factory=list)

    async def append(self, message: Message, *, behind: bool = False) -> bool:
        await asyncio.sleep(0)
        if self.away:
            raise Away("outbox is away")
        if behind and all(row.key != message.key for row in self.rows):
            return False
        if self.full:
            raise Full
        self.rows.append(message)
        return True

    async def find(self, payment_id: str) -> bytes | None:
        await asyncio.sleep(0)
        if self.away:
            raise Away("outbox is away")
        return next((row.value for row in self.rows if row.key == payment_id.encode()), None)


def row(*, amount: str = "12.50", state: str = "COMPLETED", **changes: Any) -> dict[str, Any]:
    """A row of the payments table for BODY under KEY."""
    command = commands.create({**BODY, "amount": amount}, idempotency_key=KEY, lanes=LANES, accepted_at_ms=0)
    at = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    return {
        "payment_id": ID, "merchant_id": "shop", "state": state, "amount_minor": command.amount_minor,
        "currency": "USD",
        "payment_method": "pm_approve", "customer_id": None, "description": None, "metadata": "{}", "lane": "simulator",
        "expires_at": None, "attempt": 1, "reason": None, "provider_charge_id": "ch_1", "accepted_at": at,
        "updated_at": at, "retry_at": None, "level": None, "version": 3,
        "fingerprint": commands.fingerprint(command), **changes,
    }  # fmt: skip


@dataclass
class MemoryLists:
    """Pages out of the rows in memory, with the filters' order and bounds; ``asked`` is what was wanted."""

    payments: MemoryPayments
    away: bool = False
    trail: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    asked: list[Filters] = field(default_factory=list)

    async def page(self, found: Filters, merchant_id: str) -> Page:
        if self.away:
            raise Away("postgres is away")
        self.asked.append(found)
        places = sorted(
            (Place(row["accepted_at"], uuid.UUID(row["payment_id"])), row)
            for row in self.payments.rows.values()
            if row["merchant_id"] == merchant_id and (found.status or row["state"]) == row["state"]
        )
        rows = [row for place, row in reversed(places) if place < found.end]
        last = [Place(row["accepted_at"], uuid.UUID(row["payment_id"])) for row in rows[: found.limit]][-1:]
        return Page(rows[: found.limit], last[0] if len(rows) > found.limit else None)

    async def events(self, payment_id: str, merchant_id: str, *, after: int, limit: int) -> list[dict[str, Any]]:
        if self.away:
            raise Away("postgres is away")
        assert self.payments.rows.get(payment_id, {"merchant_id": merchant_id})["merchant_id"] == merchant_id
        return [row for row in self.trail.get(payment_id, []) if row["version"] > after][:limit]


class MemoryResults:
    """What stands on ``payments.results``: ``tell`` is one more record; ``away`` ends the reading."""

    def __init__(self) -> None:
        self.away = False
        self.reading = 0
        self._queue: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()

    async def __call__(self) -> AsyncGenerator[tuple[bytes, bytes] | None, None]:
        self.reading += 1
        if self.away:
            raise Away("kafka is away")
        yield None
        while True:
            yield await self._queue.get()

    def tell(self, payment_id: str, value: PaymentResult | bytes) -> None:
        self._queue.put_nowait((payment_id.encode(), value if isinstance(value, bytes) else codec.encode(value)))


@dataclass
class World:
    """The app and what is under it."""

    keys: MemoryKeys = field(default_factory=MemoryKeys)
    payments: MemoryPayments = field(default_factory=MemoryPayments)
    kafka: MemoryKafka = field(default_factory=MemoryKafka)
    outbox: MemoryOutbox = field(default_factory=lambda: MemoryOutbox(full=True))
    """Full unless a test is about it: then nothing but Kafka can take a command."""
    lists: MemoryLists = field(init=False)
    results: MemoryResults = field(default_factory=MemoryResults)
    keyring: MemoryKeyring = field(default_factory=MemoryKeyring)
    shared: MemoryShared = field(default_factory=MemoryShared)
    rate_limit: str = "1000000/second"
    waiters_max: int = 10
    in_flight_max: int = 100
    working: int = 100
    replay: Replay = Replay.CONFLICT
    queues: Queues = field(default_factory=lambda: Queues({name: Lane(name=name) for name in ("simulator", "other")}))

    def __post_init__(self) -> None:
        self.lists = MemoryLists(self.payments)
        self.finals = Finals(self.results, most=self.waiters_max, start_s=0.2)

    def acceptance(self) -> Acceptance:
        delivery = Delivery(self.kafka.publish, self.outbox)
        return Acceptance(
            self.keys, self.payments, delivery, self.queues, default_lane="simulator", publish_timeout_s=1.4
        )

    def app(self, *, access_log: bool = False) -> FastAPI:
        readiness = Readiness(
            needed={"kafka": self.kafka.ping}, wanted={"redis": self.keys.ping, "postgres": self.payments.ping}
        )
        gate = Gate(self.in_flight_max, working=self.working)
        tenants = Tenants(self.keyring, PEPPER, grace_s=900)
        self.rates = Rates(self.shared, self.rate_limit)
        return assemble(
            self.acceptance(), readiness, REACH, gate, tenants,
            rates=self.rates, lists=self.lists, queues=self.queues, finals=self.finals, replay=self.replay,
            access_log=access_log,
        )  # fmt: skip

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        transport = httpx2.ASGITransport(self.app())
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTHORIZED) as found:
            yield found
        await self.rates.close()
        await self.finals.close()

    def kafka_away(self) -> None:
        self.kafka.error = PublishTimedOut("no ack within 1.4 s")


async def post(client: httpx2.AsyncClient, key: str = KEY, **changes: Any) -> httpx2.Response:
    """Create BODY with these changes."""
    return await client.post("/v1/payments", json={**BODY, **changes}, headers={"Idempotency-Key": key})


def problem(answer: httpx2.Response, status: int, code: str, field: str = "") -> dict[str, Any]:
    """The problem document of an answer, checked against RFC 9457 and our own shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["code"] == code, found
    assert found["type"] == f"urn:kifiya:problem:{code}"
    assert [error["field"] for error in found.get("errors", [])] == ([field] if field else [])
    return found
