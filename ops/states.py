"""The states of payments as PostgreSQL knows them: a projection, good for leaving work out, never for a decision."""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

import asyncpg

TIMEOUT_S: Final = 10.0
CHUNK: Final = 1000
_STATES: Final = "SELECT payment_id::text, state FROM payments WHERE payment_id = ANY($1::uuid[])"


class Unknown(Exception):
    """PostgreSQL cannot be asked; the message says why."""


async def of(database_url: str, ids: list[str]) -> dict[str, str]:
    """Payment to state, without those that have no row; empty where no database is named. Raises Unknown."""
    if not database_url or not ids:
        return {}
    try:
        return await _ask(database_url, [each for each in ids if _is_uuid(each)])
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise Unknown(f"{type(error).__name__}: {said}" if said else type(error).__name__) from error


async def _ask(database_url: str, ids: list[str]) -> dict[str, str]:
    async with asyncio.timeout(TIMEOUT_S):
        connection = await asyncpg.connect(database_url, timeout=TIMEOUT_S, server_settings={"role": "kifiya_ops"})
        try:
            found: dict[str, str] = {}
            for start in range(0, len(ids), CHUNK):
                rows = await connection.fetch(_STATES, ids[start : start + CHUNK])
                found.update((row[0], row[1]) for row in rows)
            return found
        finally:
            await connection.close(timeout=2)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
