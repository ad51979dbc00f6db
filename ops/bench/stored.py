"""What a request costs with a million payments stored, beside one with none: two ingresses in turns on one machine."""

from __future__ import annotations

import urllib.parse
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import asyncpg

from ops.bench import payments
from ops.bench.figures import Aim, Figure, ratios
from ops.bench.rig import Bench, declare, environment, kafka_of
from ops.bench.served import CLOSED_CONNECTIONS, closed, load, merchant, migrate, serving
from ops.local.stack import Stack, running

NAME: Final = "stored"
MOST: Final = 1.1
_WITHIN_S: Final = 900.0
_FILL: Final = """
INSERT INTO payments (payment_id, merchant_id, idempotency_key, fingerprint, state, version, amount_minor, currency,
                      payment_method, customer_id, metadata, lane, attempt, accepted_at, updated_at)
SELECT gen_random_uuid(), $2, 'stored-' || i, 'f', 'COMPLETED', 3, 1250, 'USD', 'pm_approve', 'c' || i % 5000,
       jsonb_build_object('order', i::text), 'simulator', 1, now() - i * interval '1 s', now()
FROM generate_series(1, $1::int) AS i"""


async def measure(bench: Bench) -> list[Figure]:
    """Both served by one Kafka, one Redis and one PostgreSQL, each from a database of its own."""
    count = bench.size(1_000_000, 50_000)
    with TemporaryDirectory(prefix="kifiya-bench-") as folder:
        async with running(bench.kind, overrides=False) as stack, AsyncExitStack() as servers:
            await declare(kafka_of(stack))
            full = await _another(stack, "full")
            servers_of = []
            for each in (stack, full):
                await migrate(each)
                key = await merchant(each)
                if each is full:
                    await _fill(full, count)
                servers_of.append(await serving(servers, bench, environment(each, Path(folder)), "ingress", key))
            none, many = servers_of
            for server in servers_of:
                await load("closed", server, bench.size(5, 2), "--connections", str(CLOSED_CONNECTIONS))
            for run in range(bench.runs):
                for server in (none, many) if run % 2 == 0 else (many, none):
                    await closed(server, bench.size(10, 3))
                bench.say(f"stored run {run + 1}: {none.processor_us[-1]:.0f} and {many.processor_us[-1]:.0f} us")
    return [
        Figure(NAME, "processor time of one request, nothing stored", none.processor_us, "us"),
        Figure(NAME, f"  with {count:,} payments stored", many.processor_us, "us"),
        Figure(NAME, "  the one of the other", ratios(many.processor_us, none.processor_us), "x", Aim(MOST)),
        Figure(NAME, "most one worker accepts, nothing stored", none.most, "/s"),
        Figure(NAME, f"  with {count:,} payments stored", many.most, "/s"),
    ]


async def _another(stack: Stack, name: str) -> Stack:
    """The same services with an empty database of this name."""
    db = await asyncpg.connect(stack.database_url, timeout=10, command_timeout=_WITHIN_S)
    try:
        await db.execute(f'CREATE DATABASE "{name}"')
    finally:
        await db.close(timeout=5)
    url = urllib.parse.urlsplit(stack.database_url)
    return replace(stack, database_url=url._replace(path=f"/{name}").geturl())


async def _fill(stack: Stack, count: int) -> None:
    db = await asyncpg.connect(stack.database_url, timeout=10, command_timeout=_WITHIN_S)
    try:
        await db.execute(_FILL, count, payments.MERCHANT)
        await db.execute("VACUUM ANALYZE payments")
    finally:
        await db.close(timeout=5)
