"""Merchants and their API keys in PostgreSQL, as the operator changes them. A key is known once: when it is made."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from schemas import api_key
from schemas.api_key import Mode
from schemas.command import InvalidCommand, check_merchant
from schemas.rate_limit import parse

TIMEOUT_S: Final = 10.0
_KEY: Final = "SELECT key_id, merchant_id, mode, scopes, label, created_at, revoked_at FROM api_keys"


class Refused(Exception):
    """What was asked cannot be done; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Made:
    """A new key; ``key`` is shown to its owner now and never again."""

    key_id: str
    key: str
    merchant_id: str
    mode: Mode
    scopes: tuple[str, ...]


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection with the operator's rights. Raises OSError, TimeoutError, asyncpg's errors."""
    found = await asyncpg.connect(
        database_url, timeout=TIMEOUT_S, command_timeout=TIMEOUT_S,
        server_settings={"application_name": "kifiya-ops", "role": "kifiya_ops"},
    )  # fmt: skip
    try:
        yield found
    finally:
        await found.close(timeout=2)


async def add(
    db: asyncpg.Connection, merchant_id: str, mode: Mode, *, name: str = "", rate_limit: str | None = None
) -> None:
    """Add a merchant, or change its name and rate limit (None: the gateway's default). Raises Refused."""
    try:
        check_merchant(merchant_id)
        if rate_limit is not None:
            parse(rate_limit)
    except InvalidCommand as error:
        raise Refused(f"the merchant id {error.detail}") from error
    except ValueError as error:
        raise Refused(f"the rate limit {error}") from error
    stands = await db.fetchval(
        """INSERT INTO merchants (merchant_id, mode, name, rate_limit) VALUES ($1, $2, $3, $4)
           ON CONFLICT (merchant_id) DO UPDATE SET
           name = CASE WHEN merchants.mode = excluded.mode THEN excluded.name ELSE merchants.name END,
           rate_limit = CASE WHEN merchants.mode = excluded.mode THEN excluded.rate_limit ELSE merchants.rate_limit END
           RETURNING mode""",
        merchant_id, mode.value, name, rate_limit,
    )  # fmt: skip
    if stands != mode.value:
        raise Refused(f"{merchant_id} is a {stands} merchant for ever: add another one, such as {merchant_id}-{mode}")


async def listed(db: asyncpg.Connection) -> list[asyncpg.Record]:
    """All merchants, with how many keys of each work."""
    found: list[asyncpg.Record] = await db.fetch(
        """SELECT merchant_id, mode, name, rate_limit, created_at,
                  (SELECT count(*) FROM api_keys k WHERE k.merchant_id = m.merchant_id
                   AND (revoked_at IS NULL OR revoked_at > now())) AS keys
           FROM merchants m ORDER BY merchant_id"""
    )
    return found


async def create_key(  # noqa: PLR0913 - all that makes a key
    db: asyncpg.Connection,
    pepper: bytes,
    merchant_id: str,
    scopes: Sequence[str],
    *,
    mode: Mode | None = None,
    label: str = "",
) -> Made:
    """Make a key of this merchant; ``mode``, where it is given, must be the merchant's. Raises Refused."""
    try:
        scopes = api_key.check_scopes(list(scopes))
    except ValueError as error:
        raise Refused(str(error)) from error
    if not scopes:
        raise Refused(f"a key needs at least one scope of {', '.join(api_key.SCOPES)}")
    stands = await db.fetchval("SELECT mode FROM merchants WHERE merchant_id = $1", merchant_id)
    if stands is None:
        raise Refused("there is no such merchant: `kifiya merchants add` makes it")
    if mode is not None and mode.value != stands:
        other = f"{merchant_id}-{mode}"
        raise Refused(
            f"{merchant_id} is a {stands} merchant, so that test and live payments never mix: "
            f"`kifiya merchants add {other} --mode {mode}` makes one for {mode} keys"
        )
    return await _insert(db, pepper, merchant_id, Mode(stands), scopes, label)


async def rotate_key(db: asyncpg.Connection, pepper: bytes, key_id: str, *, overlap_s: float) -> Made:
    """Make a key with the rights of this one, which goes on working for ``overlap_s``. Raises Refused."""
    async with db.transaction():
        old = await db.fetchrow(
            """UPDATE api_keys SET revoked_at = now() + make_interval(secs => $2)
               WHERE key_id = $1 AND (revoked_at IS NULL OR revoked_at > now())
               RETURNING merchant_id, mode, scopes, label""",
            key_id, overlap_s,
        )  # fmt: skip
        if old is None:
            raise Refused("no key that works has this id: `kifiya keys list` shows them")
        return await _insert(db, pepper, old["merchant_id"], Mode(old["mode"]), old["scopes"], old["label"])


async def revoke_key(db: asyncpg.Connection, key_id: str) -> bool:
    """Refuse this key from now on; whether it still worked. Raises Refused where there is none."""
    worked = await db.fetchval(
        """WITH before AS (SELECT key_id, revoked_at IS NULL OR revoked_at > now() AS works FROM api_keys
                           WHERE key_id = $1 FOR UPDATE)
           UPDATE api_keys SET revoked_at = least(api_keys.revoked_at, now()) FROM before
           WHERE api_keys.key_id = before.key_id RETURNING works""",
        key_id,
    )
    if worked is None:
        raise Refused("no key has this id: `kifiya keys list` shows them")
    return bool(worked)


async def keys(db: asyncpg.Connection, merchant_id: str | None = None) -> list[asyncpg.Record]:
    """All keys, or one merchant's, without what is secret of them."""
    if merchant_id is None:
        found: list[asyncpg.Record] = await db.fetch(f"{_KEY} ORDER BY merchant_id, created_at")
    else:
        found = await db.fetch(f"{_KEY} WHERE merchant_id = $1 ORDER BY created_at", merchant_id)
    return found


async def _insert(  # noqa: PLR0913, PLR0917 - all that makes a key
    db: asyncpg.Connection, pepper: bytes, merchant_id: str, mode: Mode, scopes: Sequence[str], label: str
) -> Made:
    key_id, key = api_key.write(mode, secrets.token_bytes(api_key.ID_BYTES), secrets.token_bytes(api_key.SECRET_BYTES))
    columns: tuple[Any, ...] = (key_id, merchant_id, mode.value, list(scopes), label)
    await db.execute(
        "INSERT INTO api_keys (key_id, merchant_id, mode, scopes, label, secret_hmac) VALUES ($1, $2, $3, $4, $5, $6)",
        *columns, api_key.digest(pepper, key.encode()),
    )  # fmt: skip
    return Made(key_id, key, merchant_id, mode, tuple(scopes))
