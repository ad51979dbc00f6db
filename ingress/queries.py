"""Reads of PostgreSQL: what the sink has written of a payment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import asyncpg

from ingress.batches import Batches
from ingress.presence import Presence

_MANY: Final = """
SELECT payment_id, merchant_id, state, amount_minor, currency, payment_method, customer_id, description, metadata, lane,
       expires_at, attempt, reason, provider_charge_id, accepted_at, updated_at, retry_at, level, version,
       fingerprint
FROM payments_of($1::uuid[], $2::text[])
"""

Ask = tuple[str, str]
"""A payment id and the merchant whose payment it must be."""
Row = Mapping[str, Any]


class Payments:
    """The payments table. Raises Away instead of waiting longer than twice ``timeout_s``."""

    def __init__(self, url: str, *, timeout_s: float = 0.3) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._presence = Presence("postgres", self._look)
        self._batches: Batches[Ask, Row | None] = Batches(self._presence, self._carry, timeout_s=timeout_s)
        self._connection: asyncpg.Connection | None = None
        self._many: Any = None

    async def close(self) -> None:
        """Close the connection."""
        await self._presence.close()
        self._drop()

    async def ping(self) -> None:
        """Whether the table can be read. Raises Away."""
        await self.find("00000000-0000-0000-0000-000000000000", "")

    def find(self, payment_id: str, merchant_id: str) -> Awaitable[Row | None]:
        """The row of this payment of this merchant, or None; asked for before it is awaited."""
        return self._batches.post((payment_id, merchant_id))

    async def _carry(self, asks: list[Ask]) -> list[Row | Exception | None]:
        try:
            if self._connection is None or self._connection.is_closed():
                await self._connect()
            found = await self._many.fetch([each for each, _ in asks], [merchant for _, merchant in asks])
            rows = {(str(row["payment_id"]), row["merchant_id"]): row for row in found}
        except (Exception, asyncio.CancelledError):
            self._drop()
            raise
        return [rows.get(each) for each in asks]

    async def _connect(self) -> None:
        self._connection = await asyncpg.connect(
            self._url,
            timeout=self._timeout_s,
            server_settings={
                "application_name": "kifiya-ingress",
                "role": "kifiya_ingress",
                "default_transaction_read_only": "on",
                "statement_timeout": str(int(self._timeout_s * 1000)),
            },
        )
        self._many = await self._connection.prepare(_MANY)

    def _drop(self) -> None:
        connection, self._connection, self._many = self._connection, None, None
        if connection is not None:
            connection.terminate()

    async def _look(self) -> None:
        await self._carry([])
