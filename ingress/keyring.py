"""API keys in PostgreSQL: looked up many at once over one connection, which also hears of their changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import asyncpg

from ingress.batches import Batches
from ingress.presence import Presence
from ingress.tenants import Caller, Key
from schemas.api_key import Mode

CHANNEL: Final = "kifiya_keys"
"""NOTIFY of a key's id: the migration's triggers send it with each change of a key or its merchant."""
_MANY: Final = """
SELECT key_id, secret_hmac, mode, merchant_id, scopes, rate_limit,
       extract(epoch FROM revoked_at - clock_timestamp())::float8 AS left_s
FROM api_keys JOIN merchants USING (merchant_id, mode) WHERE key_id = ANY($1::text[])
"""


class Keyring:
    """The keys. Raises Away instead of waiting longer than twice ``timeout_s``."""

    def __init__(self, url: str, *, changed: Callable[[str], None] = lambda _: None, timeout_s: float = 0.3) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._presence = Presence("postgres-keys", self._look)
        self._batches: Batches[str, Key | None] = Batches(self._presence, self._carry, timeout_s=timeout_s)
        self._connection: asyncpg.Connection | None = None
        self._many: Any = None
        self.changed = changed

    async def close(self) -> None:
        """Close the connection."""
        await self._presence.close()
        self._drop()

    async def ping(self) -> None:
        """Whether keys can be looked up. Raises Away."""
        await self.find("")

    async def find(self, key_id: str) -> Key | None:
        """The key with this id. Raises Away."""
        return await self._batches.ask(key_id)

    async def _carry(self, ids: list[str]) -> list[Key | Exception | None]:
        try:
            if self._connection is None or self._connection.is_closed():
                await self._connect()
            now = time.monotonic()
            rows = {row["key_id"]: _key(row, now) for row in await self._many.fetch(ids)}
        except (Exception, asyncio.CancelledError):
            self._drop()
            raise
        return [rows.get(key_id) for key_id in ids]

    async def _connect(self) -> None:
        self._connection = await asyncpg.connect(
            self._url,
            timeout=self._timeout_s,
            server_settings={
                "application_name": "kifiya-ingress-keys",
                "role": "kifiya_ingress",
                "default_transaction_read_only": "on",
                "statement_timeout": str(int(self._timeout_s * 1000)),
            },
        )
        self._many = await self._connection.prepare(_MANY)
        await self._connection.add_listener(CHANNEL, lambda _, __, ___, key_id: self.changed(key_id))

    def _drop(self) -> None:
        connection, self._connection, self._many = self._connection, None, None
        if connection is not None:
            connection.terminate()

    async def _look(self) -> None:
        await self._carry([])


def _key(row: Any, now: float) -> Key:
    who = Caller(
        row["merchant_id"], Mode(row["mode"]), frozenset(row["scopes"]), row["key_id"], rate_limit=row["rate_limit"]
    )
    return Key(row["secret_hmac"], who, None if row["left_s"] is None else now + row["left_s"])
