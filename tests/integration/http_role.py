"""``python -m ingress`` as a process on a free port, and what it put on ``payments.commands``."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2
from aiokafka import AIOKafkaConsumer, TopicPartition

from ops import merchants
from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, end_offsets
from ops.local import child
from ops.local.stack import Stack
from schemas import api_key, codec, topics
from schemas.api_key import Mode
from schemas.records import PaymentCommand
from tests.integration.tables import migrate

LANE = "simulator"
DEADLINE_S = 30.0
PEPPER = "a pepper of the tests"
STRANGER = api_key.write(Mode.TEST, bytes(8), bytes(32))[1]
NOWHERE = {
    "KAFKA_BOOTSTRAP": "127.0.0.1:9",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "DATABASE_URL": "postgresql://kifiya:secret@127.0.0.1:9/kifiya",
    "API_KEY_PEPPER": PEPPER,
}
"""A stack that is not there: nobody listens on the discard port."""


async def until(check: Callable[[], Awaitable[Any]], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """The first truthy answer of ``check``. Raises AssertionError that says what did not come."""
    end = time.monotonic() + timeout_s
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.02)


@dataclass
class Ingress:
    """The running process. ``lines`` are what it wrote on stderr."""

    process: asyncio.subprocess.Process
    http: httpx2.AsyncClient
    port: int
    database_url: str
    merchant: str = ""
    lines: list[str] = field(default_factory=list)

    async def become(self, merchant: str = "") -> None:
        """Call as this merchant from now on, or as one of this moment's own."""
        self.merchant = merchant or f"m-{uuid.uuid4().hex[:12]}"
        self.http.headers["Authorization"] = f"Bearer {await key_of(self.database_url, self.merchant)}"

    def body(self, **changes: Any) -> dict[str, Any]:
        """The fields of a payment of this test's own merchant."""
        fields = {"amount": "12.50", "currency": "USD", "payment_method": "pm_approve"}
        return {**fields, **changes}

    async def post(self, key: str | None = None, **changes: Any) -> httpx2.Response:
        """Create a payment."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return await self.http.post("/v1/payments", json=self.body(**changes), headers=headers)

    async def timed_post(self, key: str | None = None, **changes: Any) -> tuple[httpx2.Response, float]:
        """Create a payment, and the seconds that it took."""
        began = time.monotonic()
        answer = await self.post(key, **changes)
        return answer, time.monotonic() - began

    async def readiness(self) -> dict[str, Any]:
        """What /readyz says, with its status code."""
        answer = await self.http.get("/readyz")
        return {"code": answer.status_code, **answer.json()}

    async def well(self, timeout_s: float = DEADLINE_S) -> None:
        """Wait until nothing is missing or degraded."""

        async def check() -> bool:
            return await self.readiness() == {"code": 200, "ready": True, "missing": [], "degraded": []}

        await until(check, "everything is there", timeout_s)

    def actions(self) -> list[str]:
        """The ``action`` of each log line."""
        return [json.loads(line).get("action", "") for line in self.lines]


def environment(stack: Stack) -> dict[str, str]:
    """The settings of an ingress on this stack."""
    return {
        "KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "KAFKA_DIALECT": stack.kafka_dialect,
        "REDIS_URL": stack.redis_url,
        "DATABASE_URL": stack.database_url,
        "API_KEY_PEPPER": PEPPER,
        "RATE_LIMIT": "1000000/second",
        "LANES": f'{{"{LANE}": {{"provider": "simulator"}}}}',
    }


async def key_of(database_url: str, merchant: str, *scopes: str) -> str:
    """A new key of this merchant in test mode; the merchant is made where it is missing. Raises asyncpg's errors."""
    return (await keys_of(database_url, [merchant], *scopes))[0]


async def keys_of(database_url: str, names: Iterable[str], *scopes: str) -> list[str]:
    """The same for many."""
    async with merchants.connected(database_url) as db:
        found = []
        for name in names:
            await merchants.add(db, name, Mode.TEST)
            found.append((await merchants.create_key(db, PEPPER.encode(), name, scopes or api_key.SCOPES)).key)
    return found


@asynccontextmanager
async def ingress(settings: dict[str, str]) -> AsyncIterator[Ingress]:
    """Run an ingress on a free port; it must have listened, and must end with 0 unless the test ended it.

    Its client has the key of a merchant of its own, and a stranger's where the database has no tables.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ingress", env=os.environ | {"INGRESS_PORT": "0"} | settings,
        stderr=asyncio.subprocess.PIPE, preexec_fn=child.bind_to_parent,
    )  # fmt: skip
    assert process.stderr is not None
    lines: list[str] = []
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def read(stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            lines.append(raw.decode())
            if not listening.done() and '"listening"' in lines[-1]:
                listening.set_result(json.loads(lines[-1])["port"])

    reading = asyncio.create_task(read(process.stderr))
    try:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([listening, reading], return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
        assert listening.done(), "".join(lines)
        limits = httpx2.Limits(max_connections=500)
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{listening.result()}", timeout=10, limits=limits, trust_env=False
        ) as http:
            role = Ingress(process, http, listening.result(), settings["DATABASE_URL"], lines=lines)
            http.headers["Authorization"] = f"Bearer {STRANGER}"
            with suppress(OSError, asyncpg.PostgresError):
                await role.become()
            yield role
    finally:
        ended_here = process.returncode is None
        if ended_here:
            process.terminate()
        try:
            code = await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            raise
        await reading
    if ended_here:
        assert code == 0, "".join(lines)
    assert "Traceback" not in "".join(lines), "".join(lines)


async def prepare(stack: Stack) -> None:
    """Topics and tables, where they are missing."""
    if stack.kafka_bootstrap:
        await create_topics(KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect), topics.declare([LANE]))
    if stack.database_url:
        await migrate(stack.database_url)


async def published(stack: Stack, merchant: str) -> list[PaymentCommand]:
    """All commands of this merchant, read from the topic's beginning to its present end."""
    kafka = KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect)
    ends = await end_offsets(kafka, [TopicPartition(topics.COMMANDS, number) for number in range(12)])
    wanted = {partition: end for partition, end in ends.items() if end > 0}
    if not wanted:
        return []
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    found: list[PaymentCommand] = []
    try:
        consumer.assign(list(wanted))
        async with asyncio.timeout(DEADLINE_S):
            while wanted:
                for partition, records in (await consumer.getmany(*wanted, timeout_ms=500)).items():
                    for record in records:
                        command = codec.decode(record.value, PaymentCommand)
                        assert record.key == (command.payment_id or "").encode()
                        found.append(command)
                    if records[-1].offset + 1 >= wanted[partition]:
                        del wanted[partition]
    finally:
        await consumer.stop()
    return [command for command in found if command.merchant_id == merchant]


async def store(stack: Stack, command: PaymentCommand, fingerprint: str, *, state: str = "COMPLETED") -> None:
    """Write the row that the sink would write for this payment."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        await connection.execute(
            """INSERT INTO payments (payment_id, merchant_id, idempotency_key, fingerprint, state, version,
            amount_minor,
               currency, payment_method, metadata, lane, attempt, provider_charge_id, accepted_at, updated_at)
               VALUES ($1, $2, $3, $4, $5, 5, $6, $7, $8, '{"order": "1"}', $9, 1, 'ch_1', now(), now())""",
            command.payment_id, command.merchant_id, command.idempotency_key, fingerprint, state,
            command.amount_minor, command.currency, command.payment_method, LANE,
        )  # fmt: skip
    finally:
        await connection.close()
