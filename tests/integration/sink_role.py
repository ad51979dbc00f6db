"""The sink as a process, and its database as analysts see it; events and letters to feed it with."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2

from ops import letters
from ops.kafka.clients import KafkaSettings, Message
from ops.kafka.reading import present
from ops.local.ports import free_port
from schemas import codec, topics
from schemas.records import DeadLetter, EventType, PaymentEvent, State
from tests.integration import roles
from tests.integration.tables import migrate

DEADLINE_S = 60.0
NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def event(payment_id: str, version: int = 1, **changes: Any) -> PaymentEvent:
    """One of the steps PENDING, PROCESSING, COMPLETED, each a second after the one before."""
    state, kind = {
        1: (State.PENDING, EventType.STATE_CHANGED),
        2: (State.PROCESSING, EventType.CALL_INTENDED),
    }.get(version, (State.COMPLETED, EventType.CALL_FINISHED))
    fields: dict[str, Any] = {
        "type": kind,
        "version": version,
        "state": state,
        "payment_id": payment_id,
        "merchant_id": "acme",
        "idempotency_key": f"k-{payment_id}",
        "fingerprint": "ab" * 32,
        "amount_minor": 1250,
        "currency": "USD",
        "payment_method": "pm_approve",
        "metadata": {"order": "7"},
        "lane": "simulator",
        "accepted_at_ms": NOW_MS,
        "attempt": min(version - 1, 1),
        "at_ms": NOW_MS + 1000 * (version - 1),
        **changes,
    }
    return PaymentEvent(**fields)


def to_events(*events: PaymentEvent, partition: int | None = None) -> list[Message]:
    return [Message(topics.EVENTS, e.payment_id.encode(), codec.encode(e), partition=partition) for e in events]


def letter(offset: int, **changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "reason": "poison",
        "detail": "what was wrong",
        "stage": "intake",
        "topic": topics.COMMANDS,
        "partition": 3,
        "offset": offset,
        "original": b"junk",
        "original_size": 4,
        "original_sha256": hashlib.sha256(b"junk").hexdigest(),
        "at_ms": NOW_MS,
        **changes,
    }
    return DeadLetter(**fields)


def to_letters(*letters: DeadLetter, partition: int = 0) -> list[Message]:
    return [Message(topics.DEAD_LETTER, b"k", codec.encode(found), partition=partition) for found in letters]


def ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


async def until(check: Callable[[], Awaitable[Any]], what: str, timeout_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + timeout_s
    while not await check():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.05)


@dataclass
class Rows:
    """A database of the sink's, as analysts see it."""

    url: str

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url, timeout=10)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def payments(self, wanted: Iterable[str]) -> dict[str, asyncpg.Record]:
        found = await self.fetch("SELECT * FROM payments WHERE payment_id = ANY($1::uuid[])", list(wanted))
        return {str(row["payment_id"]): row for row in found}

    async def events(self, wanted: Iterable[str]) -> Counter[str]:
        """How many events each payment has."""
        query = "SELECT payment_id FROM payment_events WHERE payment_id = ANY($1::uuid[])"
        return Counter(str(row["payment_id"]) for row in await self.fetch(query, list(wanted)))

    async def letters(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await self.fetch(f"SELECT * FROM dead_letters WHERE {query}", *arguments)

    async def reach(self, wanted: Iterable[str], version: int) -> None:
        """Wait until each of these payments stands at this version."""
        expected = dict.fromkeys(wanted, version)

        async def reached() -> bool:
            found = await self.payments(expected)
            return {key: row["version"] for key, row in found.items()} == expected

        await until(reached, f"{len(expected)} payments at version {version}")


async def migrating(url: str) -> int:
    """The migration as its own process, as people run it; its exit status."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sinks", "migrate", env=os.environ | {"DATABASE_URL": url}
    )
    return await process.wait()


@asynccontextmanager
async def a_database(server: str) -> AsyncIterator[Rows]:
    """A database of its own on this server, with the tables."""
    name = f"sink_{uuid.uuid4().hex[:8]}"
    await Rows(server).fetch(f"CREATE DATABASE {name}")
    found = Rows(f"{server.rpartition('/')[0]}/{name}")
    await migrate(found.url)
    yield found
    await Rows(server).fetch(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Role:
    process: asyncio.subprocess.Process
    port: int

    async def missing(self) -> list[str]:
        """What it lacks to be ready; ``["answer"]`` before it serves."""
        async with httpx2.AsyncClient(timeout=10) as http:
            try:
                found = await http.get(f"http://127.0.0.1:{self.port}/readyz")
            except httpx2.TransportError:
                return ["answer"]
        said = found.json()
        assert (found.status_code == 200) == said["ready"] == (not said["missing"])
        return list(said["missing"])

    async def ready(self) -> None:
        async def check() -> bool:
            assert self.process.returncode is None
            return not await self.missing()

        await until(check, "the sink is ready")

    async def metric(self, name: str) -> float:
        return (await roles.metrics(self.port)).get(name, 0.0)


@asynccontextmanager
async def sink(kafka: KafkaSettings, database: Rows) -> AsyncIterator[Role]:
    port = free_port()
    async with roles.process(
        "sinks",
        KAFKA_BOOTSTRAP=kafka.bootstrap,
        KAFKA_DIALECT=kafka.dialect,
        DATABASE_URL=database.url,
        ADMIN_PORT=str(port),
    ) as process:
        yield Role(process, port)


async def written(kafka: KafkaSettings) -> list[letters.Found]:
    """The letters that the sink wrote, each as often as it stands on the topic."""
    async with aclosing(present(kafka, topics.DEAD_LETTER)) as records:
        found = [letters.find(record) async for record in records]
    return [each for each in found if each is not None and each.letter.stage == "sink"]
