"""Alembic's entry: runs the versions over asyncpg, in one transaction, under an advisory lock."""

from __future__ import annotations

import asyncio

import asyncpg
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sinks.migrate import LOCK_ID


async def _connect() -> asyncpg.Connection:
    """A connection made by asyncpg itself, so that every URL the sink takes (sslmode, several hosts) is taken here."""
    return await asyncpg.connect(context.config.attributes["url"], timeout=10, command_timeout=120)


def _run(connection: Connection) -> None:
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_ID})"))
        context.run_migrations()


async def _main() -> None:
    engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=_connect)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run)
            await connection.commit()
    finally:
        await engine.dispose()


asyncio.run(_main())
