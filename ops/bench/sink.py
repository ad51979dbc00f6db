"""The sink beside a plain COPY of the same rows into identical tables."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import asyncpg

from ops.bench import payments
from ops.bench.figures import Aim, Figure, rate_of_counts, ratios
from ops.bench.rig import Bench, NotMeasured, declare, kafka_of, role
from ops.bench.served import migrate
from ops.local.stack import Stack, running
from schemas import topics

NAME: Final = "sink"
DONE_S: Final = 120.0
TABLES: Final = ("payments", "payment_events")
ROWS_PER_EVENT: Final = 2
"""A payment's first event makes a row in each table."""


async def measure(bench: Bench) -> list[Figure]:
    """In each run so many first events of new payments: the sink writes them, then COPY writes the same rows again."""
    count = bench.size(20_000, 4_000)
    sunk: list[float] = []
    copied: list[float] = []
    async with running(bench.kind, parts=frozenset({"kafka", "postgres"}), overrides=False) as stack:
        kafka = kafka_of(stack)
        await declare(kafka)
        await migrate(stack)
        database = await asyncpg.connect(stack.database_url, timeout=5, command_timeout=60)
        try:
            for name in TABLES:
                await database.execute(f"CREATE TABLE bench_{name} (LIKE {name} INCLUDING ALL)")
            for run in range(bench.runs):
                await payments.fill(kafka, payments.event_of, f"run-{run}", count)
                with TemporaryDirectory(prefix="kifiya-bench-") as folder:
                    sunk.append(ROWS_PER_EVENT * await _sink(bench, stack, Path(folder), database, count * (run + 1)))
                copied.append(await _copy(database, f"run-{run}-", ROWS_PER_EVENT * count))
                bench.say(f"sink run {run + 1}: {sunk[-1]:,.0f} rows/s beside COPY {copied[-1]:,.0f}/s")
        finally:
            await database.close(timeout=5)
    return [
        Figure(NAME, f"rows, of {count:,} events waiting", sunk, "/s"),
        Figure(NAME, "  events", [rows / ROWS_PER_EVENT for rows in sunk], "/s", Aim(1000, at_least=True)),
        Figure(NAME, "  rows of a plain COPY", copied, "/s"),
        Figure(NAME, "  ours of COPY", ratios(sunk, copied), "x"),
    ]


async def _sink(bench: Bench, stack: Stack, folder: Path, database: asyncpg.Connection, total: int) -> float:
    watching = asyncio.create_task(_watch(database, total))  # before the role is ready it has written
    try:
        async with role(bench, stack, folder, "sinks"):
            return await watching
    finally:
        watching.cancel()


async def _watch(database: asyncpg.Connection, total: int) -> float:
    """Events a second until ``total`` are written, as the sink's own bookkeeping in PostgreSQL shows them."""
    samples: list[tuple[float, int]] = []
    before: int | None = None
    end = time.monotonic() + DONE_S
    while True:
        found = await database.fetchval(
            "SELECT coalesce(sum(next_offset), 0)::bigint FROM sink_offsets WHERE topic = $1", topics.EVENTS
        )
        before = found if before is None else before
        samples.append((time.perf_counter(), found - before))
        if found >= total:
            return rate_of_counts(samples)
        if time.monotonic() > end:
            raise NotMeasured(f"not within {DONE_S:g} s: {total} events written by the sink ({found} are)")
        await asyncio.sleep(0.02)


async def _copy(database: asyncpg.Connection, run: str, expected: int) -> float:
    """Rows a second of one COPY a table, in one transaction; the table is as full as the sink's was."""
    found: dict[str, list[Any]] = {
        "payments": await database.fetch("SELECT * FROM payments WHERE idempotency_key LIKE $1 || '%'", run),
        "payment_events": await database.fetch(
            "SELECT e.* FROM payment_events e JOIN payments p USING (payment_id) WHERE idempotency_key LIKE $1 || '%'",
            run,
        ),
    }
    if sum(map(len, found.values())) != expected:
        raise NotMeasured(f"the sink wrote {sum(map(len, found.values()))} rows, {expected} were expected")
    rows = {name: [tuple(row) for row in records] for name, records in found.items()}
    began = time.perf_counter()
    async with database.transaction():
        for name, records in rows.items():
            await database.copy_records_to_table(f"bench_{name}", records=records, timeout=60)
    return expected / (time.perf_counter() - began)
