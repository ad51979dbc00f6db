"""Alembic's entry: runs the versions over asyncpg, in one transaction, under an advisory lock."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sinks.migrate import LOCK_ID


def _run(connection: Connection) -> None:
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_ID})"))
        context.run_migrations()


async def _main() -> None:
    engine = create_async_engine(
        context.config.attributes["url"], poolclass=NullPool, connect_args={"timeout": 10, "command_timeout": 120}
    )
    async with engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await engine.dispose()


asyncio.run(_main())
