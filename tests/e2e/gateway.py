"""A whole gateway as a black box: ``kifiya up --json`` in a process of its own, and what a person could ask it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
from aiokafka import AIOKafkaProducer

START_S = 90.0
FINAL = {"COMPLETED", "FAILED", "CANCELLED"}


async def until(check: Callable[[], Awaitable[Any]], what: str, within_s: float = 60.0) -> Any:
    """The first truthy answer of ``check``. Raises AssertionError after ``within_s`` seconds."""
    end = time.monotonic() + within_s
    while True:
        found = await check()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {within_s} s: {what}")
        await asyncio.sleep(0.1)


@dataclass
class Gateway:
    """A running gateway; the fields are those that ``kifiya up --json`` prints."""

    ingress: str
    simulator: str
    kafka: str
    redis: str
    postgres: str
    merchant_id: str
    api_key: str
    process: asyncio.subprocess.Process
    state: Path
    http: httpx2.AsyncClient
    db: asyncpg.Pool

    async def status(self) -> dict[str, Any]:
        """What ``kifiya status -o json`` prints."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ops.cli.main", "status", "-o", "json",
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "KIFIYA_STATE": str(self.state)},
        )  # fmt: skip
        out, _ = await process.communicate()
        found: dict[str, Any] = json.loads(out)
        return found

    async def kill(self, role: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Kill a role's process; the supervisor starts it again. Returns the old pid."""
        pid = int((await self.status())["pids"][role])
        os.kill(pid, how)
        return pid

    def body(self, **changes: Any) -> dict[str, Any]:
        """The fields of a payment."""
        return {
            "merchant_id": self.merchant_id,
            "amount": "12.50",
            "currency": "USD",
            "payment_method": "pm_approve",
            **changes,
        }

    async def post(self, key: str | None = None, **changes: Any) -> httpx2.Response:
        """Create a payment over HTTP."""
        return await self.http.post(
            f"{self.ingress}/v1/payments",
            json=self.body(**changes),
            headers={"Authorization": f"Bearer {self.api_key}", "Idempotency-Key": key or uuid.uuid4().hex},
        )

    async def create(self, key: str | None = None, **changes: Any) -> str:
        """Create a payment over HTTP, asking again while the ingress is away; its id."""
        key = key or uuid.uuid4().hex
        end = time.monotonic() + 30
        while True:
            try:
                answer = await self.post(key, **changes)
            except httpx2.TransportError:
                answer = None
            if answer is not None and answer.status_code in {201, 409}:
                return str(answer.json()["payment_id"])
            assert time.monotonic() < end, answer.text if answer is not None else "no answer"
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        """A Kafka producer of a merchant."""
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, acks="all")
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def rows(self, ids: list[str]) -> dict[str, Any]:
        """Rows of the payments table by id."""
        found = await self.db.fetch("SELECT * FROM payments WHERE payment_id = ANY($1::uuid[])", ids)
        return {str(row["payment_id"]): row for row in found}

    async def wait_final(self, ids: list[str], within_s: float = 90.0) -> dict[str, str]:
        """States of these payments once all are final or in review."""

        async def check() -> dict[str, str]:
            rows = await self.rows(ids)
            states = {key: row["state"] for key, row in rows.items()}
            done = len(states) == len(set(ids)) and all(state in FINAL | {"REVIEW"} for state in states.values())
            return states if done else {}

        try:
            found: dict[str, str] = await until(check, "all payments final", within_s)
        except AssertionError as error:
            rows = await self.rows(ids)
            raise AssertionError(
                f"{error}: {Counter(row['state'] for row in rows.values())}, {len(set(ids) - set(rows))} without a row"
            ) from error
        return found

    async def observed(self) -> dict[str, Any]:
        """The provider's own log."""
        found: dict[str, Any] = (await self.http.get(f"{self.simulator}/observed")).json()
        return found

    async def charges(self, ids: list[str]) -> Counter[str]:
        """How often the provider charged each of these payments, by its own ledger."""
        wanted = set(ids)
        return Counter(
            charge["reference"]
            for charge in (await self.observed())["charges"]
            if charge["reference"] in wanted and charge["status"] == "approved"
        )

    async def most_calls_in_a_second(self) -> int:
        """The most calls that the provider saw in any second, by its own clock."""
        times = sorted(call["arrived_ns"] for call in (await self.observed())["requests"])
        most = first = 0
        for last, at in enumerate(times):
            while at - times[first] >= 1_000_000_000:
                first += 1
            most = max(most, last - first + 1)
        return most


@asynccontextmanager
async def running(stack: str, **environment: str) -> AsyncIterator[Gateway]:
    """Start a gateway with these variables; stop it, and all it started, at the end.

    Several run side by side, so none takes the usual port: while a killed ingress is down, another would.
    """
    with tempfile.TemporaryDirectory(prefix="kifiya-e2e-") as folder:
        state = Path(folder) / "state.json"
        log = (Path(folder) / "log").open("wb")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ops.cli.main", "up", "--stack", stack, "--json",
            stdout=asyncio.subprocess.PIPE, stderr=log,
            env={**os.environ, "KIFIYA_STATE": str(state), "INGRESS_PORT": "0", **environment},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_S)
            assert line, f"kifiya up failed:\n{Path(log.name).read_text()[-3000:]}"
            found = json.loads(line)
            async with (
                httpx2.AsyncClient(timeout=10) as http,
                asyncpg.create_pool(found["postgres"], min_size=0, max_size=2) as db,
            ):
                fields = {name: found[name] for name in ("ingress", "simulator", "kafka", "redis", "postgres")}
                yield Gateway(
                    **fields, merchant_id=found["merchant_id"], api_key=found["api_key"],
                    process=process, state=state, http=http, db=db,
                )  # fmt: skip
        except BaseException:
            sys.stderr.write(Path(log.name).read_text(errors="replace")[-8000:])
            raise
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 30)
                except TimeoutError:
                    process.kill()
            log.close()
