"""The demo's 24 records, what is counted while they run, and the verdict: from the provider and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Final

import asyncpg
import httpx2
from aiokafka import AIOKafkaProducer

from ops.fair_share import FairShare, two_merchants
from ops.local.state import Running
from ops.tour import Tour
from ops.verify import windows
from schemas import identity, money, topics
from schemas.records import State

SECOND_NS: Final = 1_000_000_000
FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.REVIEW})


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the demo: over HTTP or straight to Kafka. ``raw`` stands instead of a payment."""

    over_http: bool
    key: str = ""
    token: str = "pm_approve"  # noqa: S105 - names a payment method of the sandbox
    amount: str = "12.50"
    raw: bytes = b""


def records() -> list[Record]:
    """16 over HTTP, 8 to Kafka; what repeats or contradicts comes after what it repeats or contradicts."""
    tokens = ["pm_approve"] * 10 + ["pm_decline", "pm_503_twice"]
    http = [
        Record(over_http=True, key=f"order-{n:02}", token=token, amount=f"{10 + n}.50")
        for n, token in enumerate(tokens, 1)
    ]
    direct = [
        Record(over_http=False, key=f"batch-{n:02}", token=token, amount=f"{20 + n}.00")
        for n, token in enumerate(["pm_approve", "pm_decline", "pm_503_twice", "pm_approve", "pm_approve"], 1)
    ]
    return [
        *http,
        *http[:3],
        Record(over_http=True, key=http[3].key, amount="99.99"),
        *direct,
        Record(over_http=False, key=http[4].key, token=http[4].token, amount=http[4].amount),
        Record(over_http=False, key=http[5].key, amount="99.99"),
        Record(over_http=False, raw=b"\x00\x00\x00\x00\x01 this is not a payment"),
    ]


@dataclass(slots=True)
class Progress:
    """What can be seen from outside at one moment."""

    accepted: int = 0
    queued: int = 0
    calls_last_second: int = 0
    completed: int = 0
    declined: int = 0
    retried: int = 0
    dead_lettered: int = 0
    eta_s: float = 0.0

    def line(self, elapsed_s: float) -> str:
        """One line for a person."""
        return (
            f"{elapsed_s:5.1f} s  accepted {self.accepted:2}  queued {self.queued:2}  calls in the last second "
            f"{self.calls_last_second}  completed {self.completed:2}  declined {self.declined}  retried "
            f"{self.retried}  dead-lettered {self.dead_lettered}  drained in ~{self.eta_s:.0f} s"
        )


@dataclass(slots=True)
class Verdict:
    """The demo's last line, every number counted."""

    sent: int
    completed: int
    declined: int
    duplicates: int
    conflicts: int
    undecodable: int
    lost: int
    charged_twice: int
    most_calls: int
    limit: int
    faults: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every promise was kept and every record is accounted for."""
        accounted = self.completed + self.declined + self.duplicates + self.conflicts + self.undecodable
        kept = self.lost == 0 and self.charged_twice == 0 and self.most_calls <= self.limit
        return kept and accounted == self.sent and not self.faults

    def line(self) -> str:
        """As README shows it."""
        return (
            f"{self.sent} sent: {self.completed} completed, {self.declined} declined, {self.duplicates} duplicates, "
            f"{self.conflicts} conflicts, {self.undecodable} undecodable, {self.lost} lost, "
            f"{self.charged_twice} charged twice, max {self.most_calls} calls in any second"
        )


class Demo:
    """Sends the records to a running gateway and watches what becomes of them."""

    def __init__(self, running: Running, limit: int) -> None:
        self._running = running
        self._limit = limit
        self._run = f"{time.time_ns():x}"
        self._sent = 0
        self._expected: dict[str, Record] = {}
        self._http_duplicates = self._http_conflicts = 0
        self._faults: list[str] = []

    def _fields(self, record: Record) -> dict[str, Any]:
        return {
            "merchant_id": self._running.merchant_id,
            "amount": record.amount,
            "currency": "USD",
            "payment_method": record.token,
            "description": "demo",
        }

    def _key(self, record: Record) -> str:
        return f"{self._run}-{record.key}"

    async def send(self) -> None:
        """Send all records, in order over each way; Kafka's after HTTP's, whose payments they repeat and contradict."""
        async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
            for record in (record for record in records() if record.over_http):
                await self._post(http, record)
        producer = AIOKafkaProducer(bootstrap_servers=self._running.kafka, acks="all")
        await producer.start()
        try:
            for number, record in enumerate(record for record in records() if not record.over_http):
                await self._produce(producer, record, number)
        finally:
            await producer.stop()

    async def _post(self, http: httpx2.AsyncClient, record: Record) -> None:
        answer = await http.post(
            f"{self._running.ingress}/v1/payments",
            json=self._fields(record),
            headers={
                "Authorization": f"Bearer {self._running.api_key}",
                "Idempotency-Key": self._key(record),
            },
        )
        self._sent += 1
        if answer.status_code == 201:  # noqa: PLR2004
            self._expected[answer.json()["payment_id"]] = record
        elif answer.status_code == 409 and answer.json().get("payment_id") in self._expected:  # noqa: PLR2004
            self._http_duplicates += 1
        elif answer.status_code == 422:  # noqa: PLR2004
            self._http_conflicts += 1
        else:
            self._faults.append(f"{record.key}: HTTP answered {answer.status_code}")

    async def _produce(self, producer: AIOKafkaProducer, record: Record, number: int) -> None:
        value, key = record.raw, self._key(record)
        if not value:
            value = json.dumps({"type": "create", "idempotency_key": key, **self._fields(record)}).encode()
            self._expected.setdefault(identity.payment_id(self._running.merchant_id, key), record)
        await producer.send_and_wait(topics.COMMANDS, value, key=b"any key %d" % number)
        self._sent += 1

    async def progress(self, db: asyncpg.Connection, http: httpx2.AsyncClient) -> Progress:
        """What stands now."""
        states = await self._states(db)
        calls = (await self._observed(http))["requests"]
        ids = list(self._expected)
        retried = await db.fetchval(
            "SELECT count(*) FROM payment_events WHERE payment_id = ANY($1::uuid[]) AND outcome = 'retryable'", ids
        )
        waiting = len(ids) - sum(1 for state, _ in states.values() if state in FINAL)
        now_ns = time.monotonic_ns()
        return Progress(
            accepted=len(ids),
            queued=waiting,
            calls_last_second=sum(1 for call in calls if now_ns - call["arrived_ns"] < SECOND_NS),
            completed=sum(1 for state, _ in states.values() if state == State.COMPLETED),
            declined=sum(1 for state, _ in states.values() if state == State.FAILED),
            retried=retried,
            dead_lettered=await db.fetchval("SELECT count(*) FROM dead_letters"),
            eta_s=waiting / self._limit,
        )

    async def _states(self, db: asyncpg.Connection) -> dict[str, tuple[str, int]]:
        rows = await db.fetch(
            "SELECT payment_id, state, amount_minor FROM payments WHERE payment_id = ANY($1::uuid[])",
            list(self._expected),
        )
        return {str(row["payment_id"]): (row["state"], row["amount_minor"]) for row in rows}

    async def _observed(self, http: httpx2.AsyncClient) -> dict[str, Any]:
        found: dict[str, Any] = (await http.get(f"{self._running.simulator}/observed")).json()
        return found

    async def charged(self, http: httpx2.AsyncClient, payment_id: str) -> int:
        """How often the provider charged a payment, by its own ledger."""
        charges = (await self._observed(http))["charges"]
        return sum(1 for each in charges if each["reference"] == payment_id and each["status"] == "approved")

    async def _dropped(self, http: httpx2.AsyncClient) -> int:
        """Duplicates that intake dropped, by its own metric."""
        text = (await http.get(f"{self._running.admin['intake']}/metrics")).text
        found = re.search(r'^kifiya_intake_commands_total\{decision="duplicate"\} ([0-9.e+]+)', text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    async def verdict(self, db: asyncpg.Connection, http: httpx2.AsyncClient) -> Verdict:
        """Count everything, and hold PostgreSQL against the provider's ledger, amount by amount."""
        states, observed = await self._states(db), await self._observed(http)
        charged = Counter(c["reference"] for c in observed["charges"] if c["status"] == "approved")
        amounts = {c["reference"]: c["amount_minor"] for c in observed["charges"]}
        faults, lost = list(self._faults), 0
        for payment_id, record in self._expected.items():
            state, amount = states.get(payment_id, ("missing", 0))
            if state not in FINAL:
                lost += 1
                continue
            if (state == State.COMPLETED) != (charged[payment_id] == 1):
                faults.append(f"{record.key}: PostgreSQL says {state}, the provider {charged[payment_id]} charges")
            if not amount == amounts.get(payment_id) == money.to_minor(record.amount, "USD"):
                faults.append(f"{record.key}: {amount} in PostgreSQL, {amounts.get(payment_id)} at the provider")
        letters: Counter[str] = Counter(
            {r["reason"]: r["n"] for r in await db.fetch("SELECT reason, count(*) AS n FROM dead_letters GROUP BY 1")}
        )
        return Verdict(
            sent=self._sent,
            completed=sum(1 for state, _ in states.values() if state == State.COMPLETED),
            declined=sum(1 for state, _ in states.values() if state == State.FAILED),
            duplicates=self._http_duplicates + await self._dropped(http),
            conflicts=self._http_conflicts + letters["idempotency-conflict"],
            undecodable=letters["undecodable"],
            lost=lost,
            charged_twice=sum(1 for count in charged.values() if count > 1),
            most_calls=windows.most([call["arrived_ns"] for call in observed["requests"]], SECOND_NS),
            limit=self._limit,
            faults=faults,
        )

    async def settled(self, now: Progress) -> bool:
        """Whether nothing is on its way any more: all payments final, both bad Kafka records dead-lettered."""
        return now.queued == 0 and now.dead_lettered >= 2  # noqa: PLR2004


async def wait(demo: Demo, running: Running, within_s: float, tell: Any) -> Verdict:
    """Tour the API, tell the progress until all is settled or the time is over; then the verdict.

    Raises OSError, ops.merchants.Refused, asyncpg and httpx2 errors.
    """
    run = f"tour-{time.time_ns():x}"
    tour, fair = Tour(running, run, tell), FairShare(running, await two_merchants(running), run, tell)
    began = time.monotonic()
    db = await asyncpg.connect(running.postgres, timeout=5)
    try:
        async with httpx2.AsyncClient(timeout=5, trust_env=False) as http:
            await tour.send(http)
            await fair.send(http)
            while True:
                now, state, shared = await demo.progress(db, http), await tour.state(http), await fair.done(db, http)
                elapsed_s = time.monotonic() - began
                tell(now.line(elapsed_s))
                if (await demo.settled(now) and state in FINAL and shared) or elapsed_s > within_s:
                    tour.end(state, await demo.charged(http, tour.payment_id))
                    await fair.end(db, http)
                    verdict = await demo.verdict(db, http)
                    return replace(verdict, faults=[*verdict.faults, *tour.faults, *fair.faults])
                await asyncio.sleep(1.0)
    finally:
        await db.close(timeout=5)
