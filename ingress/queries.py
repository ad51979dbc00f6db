"""Reads of PostgreSQL: what the sink has written of a payment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import asyncpg

from ingress.idempotency import Away

_ONE: Final = """
SELECT payment_id, merchant_id, state, amount_minor, currency, payment_method, customer_id, description, metadata, lane,
       expires_at, attempt, reason, provider_charge_id, accepted_at, updated_at, version, fingerprint
FROM payments WHERE payment_id = $1
"""


class Payments:
    """The payments table. Raises Away instead of waiting longer than ``timeout_s``; after that, at once for a second."""

    def __init__(self, url: str, clock: Callable[[], float], *, timeout_s: float = 0.5, rest_s: float = 1.0) -> None:
        self._url = url
        self._clock = clock
        self._timeout_s = timeout_s
        self._rest_s = rest_s
        self._away_until = 0.0
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.terminate()

    async def ping(self) -> None:
        """Whether PostgreSQL answers."""
        await self._fetch("SELECT 1")

    async def find(self, payment_id: str) -> Any | None:
        """The row of this payment, or None."""
        return await self._fetch(_ONE, payment_id)

    async def _fetch(self, query: str, *arguments: Any) -> Any:
        if self._clock() < self._away_until:
            raise Away("PostgreSQL: resting")
        try:
            async with asyncio.timeout(self._timeout_s):
                pool = self._pool or await self._open()
                async with pool.acquire() as connection:
                    return await connection.fetchrow(query, *arguments)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._away_until = self._clock() + self._rest_s
            raise Away(f"PostgreSQL: {type(error).__name__}") from error

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url, min_size=1, max_size=8, command_timeout=self._timeout_s,
                    server_settings={"application_name": "kifiya-ingress", "default_transaction_read_only": "on"},
                )  # fmt: skip
            return self._pool
