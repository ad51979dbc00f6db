"""What Redis remembers of a key: first the claim ``publishing``, then ``published`` with the payment as accepted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import redis.asyncio as redis
from redis.exceptions import RedisError

_CLAIM: Final = Path(__file__).with_name("claim.lua").read_text()


class Away(Exception):
    """The store did not answer in time."""


class Standing(StrEnum):
    """What became of the key's first request."""

    NEW = "new"
    BUSY = "busy"
    CONFLICT = "conflict"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim; ``document`` is set where the payment was published, ``wait_ms`` where it is being so."""

    standing: Standing
    document: bytes | None = None
    wait_ms: int = 0


class Keys:
    """The keys in Redis. Every method raises Away instead of waiting longer than ``timeout_s``."""

    def __init__(self, url: str, *, lease_s: float, remember_s: int, timeout_s: float = 0.5) -> None:
        self._client: Any = redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, max_connections=200, retry=None
        )
        self._claim = self._client.register_script(_CLAIM)
        self._lease_ms = int(lease_s * 1000)
        self._remember_ms = remember_s * 1000

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ping(self) -> None:
        """Whether Redis answers."""
        await self._guard(self._client.ping())

    async def claim(self, payment_id: str, fingerprint: str) -> Claim:
        """Claim the right to publish this payment, or tell what stands."""
        raw = await self._guard(
            self._claim(keys=[_key(payment_id)], args=[fingerprint, self._lease_ms, self._remember_ms])
        )
        standing = Standing(raw[0].decode())
        if standing is Standing.PUBLISHED:
            return Claim(standing, document=raw[1])
        return Claim(standing, wait_ms=int(raw[1]) if standing is Standing.BUSY else 0)

    async def published(self, payment_id: str, fingerprint: str, document: bytes) -> None:
        """Kafka has it. Writes all fields, so a flush in between heals."""
        pipe = self._client.pipeline(transaction=True)
        fields = {"fingerprint": fingerprint, "state": "published", "document": document}
        pipe.hset(_key(payment_id), mapping=fields)
        pipe.pexpire(_key(payment_id), self._remember_ms)
        await self._guard(pipe.execute())

    async def release(self, payment_id: str) -> None:
        """The publish failed: the next request with this key and body may try at once."""
        await self._guard(self._client.hset(_key(payment_id), "lease_until_ms", 0))

    async def document(self, payment_id: str) -> bytes | None:
        """The payment as it was accepted, where it was published."""
        state, document = await self._guard(self._client.hmget(_key(payment_id), "state", "document"))
        return document if state == b"published" else None

    async def _guard(self, call: Any) -> Any:
        try:
            return await call
        except (RedisError, OSError, TimeoutError) as error:
            raise Away(f"Redis: {type(error).__name__}") from error


def _key(payment_id: str) -> str:
    return f"payment:{{{payment_id}}}"
