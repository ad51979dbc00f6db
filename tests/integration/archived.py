"""A database of its own with the sink's tables, and payments in it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

import sinks

if TYPE_CHECKING:
    from ops.local.stack import Stack

SQL = Path(sinks.__file__).parent / "sql"
TABLES = ("0001_payments.sql", "0001_payment_status.sql", "0002_tenants.sql")


@pytest.fixture
async def url(stack: Stack) -> AsyncIterator[str]:
    """A database of its own with the sink's tables and one completed payment."""
    name = f"archive_{uuid.uuid4().hex[:12]}"
    server = await asyncpg.connect(stack.database_url)
    await server.execute(f"CREATE DATABASE {name}")
    found = f"{stack.database_url.rpartition('/')[0]}/{name}"
    try:
        connection = await asyncpg.connect(found)
        for tables in TABLES:
            await connection.execute((SQL / tables).read_text())
        await connection.close()
        yield found
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


async def settle(url: str, state: str = "COMPLETED", version: int = 3, *, payment_id: str | None = None) -> str:
    """Write a payment as the sink would; its id."""
    payment_id = payment_id or str(uuid.uuid4())
    connection = await asyncpg.connect(url)
    await connection.execute("SET session_replication_role = replica")  # the merchant need not exist
    await connection.execute(
        """INSERT INTO payments (payment_id, merchant_id, idempotency_key, fingerprint, state, version, amount_minor,
           currency, payment_method, lane, attempt, accepted_at, updated_at)
           VALUES ($1::uuid, 'shop', $1::text, 'f1', $2, $3, 1, 'USD', 'pm', 'simulator', 1, now(), now())""",
        payment_id, state, version,
    )  # fmt: skip
    await connection.close()
    return payment_id
