"""Who calls: the merchant, mode and scopes of the API key, with the same work and answer for every key that is none.

What PostgreSQL said of a key is remembered. For ``FRESH_S`` it is believed, and asked again in the background from
``REFRESH_S`` on, so no request of a busy merchant waits for it. A change is told by NOTIFY and forgets the key at once:
FRESH_S is the bound where that was missed. While PostgreSQL is away known keys go on working for ``grace_s``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final, Protocol

from fastapi import Request

from ingress.presence import Away
from ingress.problem import Problem
from ingress.sent import sent
from schemas import api_key
from schemas.api_key import Mode

REFRESH_S: Final = 2.5
FRESH_S: Final = 5.0
MOST: Final = 10_000
"""Keys that are remembered, and as many strangers."""
CALLER: Final = "kifiya.caller"

_NO_ID: Final = "0" * 16
_NO_DIGEST: Final = bytes(32)
MISSING: Final = Problem(
    401, "missing-api-key", "is required: Bearer and an API key", field="Authorization",
    headers={"WWW-Authenticate": 'Bearer realm="kifiya"'},
)  # fmt: skip
INVALID: Final = Problem(
    401, "invalid-api-key", "holds no API key that is valid", field="Authorization",
    headers={"WWW-Authenticate": 'Bearer realm="kifiya", error="invalid_token"'},
)  # fmt: skip
UNCHECKED: Final = Problem(503, "keys-away", "the API key cannot be checked now", retry_after_s=1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``rate_limit`` is the merchant's own, such as ``100/second``; None is the gateway's default."""

    merchant_id: str
    mode: Mode
    scopes: frozenset[str]
    key_id: str
    rate_limit: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored. ``ends_at`` is when it stops to work, on the monotonic clock; None: never."""

    digest: bytes
    caller: Caller
    ends_at: float | None = None


class Keys(Protocol):
    """Where keys are looked up."""

    async def find(self, key_id: str) -> Key | None:
        """The key with this id. Raises Away."""


@dataclass(frozen=True, slots=True)
class _Known:
    key: Key | None
    at: float


def caller(request: Request, scope: str = "payments:write") -> Caller:
    """Who asks, where the key has this scope. Raises Problem 401, 403."""
    found = request.scope.get(CALLER)
    if not isinstance(found, Caller):
        raise MISSING
    if scope not in found.scopes:
        challenge = {"WWW-Authenticate": f'Bearer realm="kifiya", error="insufficient_scope", scope="{scope}"'}
        raise Problem(403, "missing-scope", f"the API key lacks the scope {scope}", headers=challenge)
    return found


def bearer(credentials: Sequence[bytes]) -> bytes:
    """The one that was sent. Raises Problem 401 where there is none."""
    if len(credentials) != 1:
        raise MISSING
    scheme, _, found = credentials[0].partition(b" ")
    if scheme.lower() != b"bearer":
        raise MISSING
    return found.strip(b" ")


class Tenants:
    """Tells who a request is from. ``keys`` may call ``forget`` whenever it hears that a key has changed."""

    def __init__(
        self, keys: Keys, pepper: bytes, *, grace_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._pepper = pepper
        self._grace_s = grace_s
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._strangers: dict[str, _Known] = {}
        self._loading: dict[str, asyncio.Task[Key | None]] = {}

    async def authenticate(self, credentials: Sequence[bytes]) -> Caller:
        """Whose key came as ``Authorization``. Raises Problem 401, and 503 where that cannot be told."""
        presented = bearer(credentials)
        digest = api_key.digest(self._pepper, presented)
        found = await self._find(api_key.key_id(presented) or _NO_ID)
        same = compare_digest(digest, found.digest if found else _NO_DIGEST)
        if found is None or not same or (found.ends_at is not None and found.ends_at <= self._clock()):
            raise INVALID
        return found.caller

    async def again(self, request: Request) -> None:
        """Ask once more who a request is from: it may last longer than its key. Raises Problem 401, 503."""
        request.scope[CALLER] = await self.authenticate(sent(request.scope).values(b"authorization"))

    def forget(self, key_id: str) -> None:
        """The key has changed: what is known of it, or is just being read, counts no more."""
        for kept in (self._known, self._strangers, self._loading):
            kept.pop(key_id, None)

    async def _find(self, key_id: str) -> Key | None:
        known = self._known.get(key_id) or self._strangers.get(key_id)
        age_s = float("inf") if known is None else self._clock() - known.at
        if known is not None and age_s < FRESH_S:
            if age_s >= REFRESH_S:
                self._load(key_id)
            return known.key
        try:
            return await asyncio.shield(self._load(key_id))
        except Away as error:
            if known is not None and known.key is not None and age_s < self._grace_s:
                return known.key
            raise UNCHECKED from error

    def _load(self, key_id: str) -> asyncio.Task[Key | None]:
        """Ask the store, once for all who want to know."""
        task = self._loading.get(key_id)
        if task is None:
            task = self._loading[key_id] = asyncio.create_task(self._keys.find(key_id))
            task.add_done_callback(lambda done: self._loaded(key_id, done))
        return task

    def _loaded(self, key_id: str, task: asyncio.Task[Key | None]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if self._loading.get(key_id) is not task:
            return  # the key changed while it was read
        del self._loading[key_id]
        if failed:
            return
        found = _Known(task.result(), self._clock())
        self._known.pop(key_id, None)
        self._strangers.pop(key_id, None)
        kept = self._strangers if found.key is None else self._known
        kept[key_id] = found  # the oldest come first: busy keys are read again and again
        if len(kept) > MOST:
            del kept[next(iter(kept))]


@dataclass(frozen=True, slots=True)
class Reach:
    """Which lanes a key reaches: ``sandbox`` lanes those in test mode, the others those in live mode."""

    lanes: frozenset[str]
    sandbox: frozenset[str]
    default: str

    def check(self, who: Caller, lane: str | None) -> None:
        """Raises Problem 422 where a payment on this lane (None: the default one) is not for this caller."""
        taken = lane or self.default
        if (taken in self.sandbox) == (who.mode is Mode.TEST):
            return
        other = "test" if taken in self.sandbox else "live"
        what = "takes" if lane else f"is required: the default lane {taken} takes"
        raise Problem(
            422, "lane-of-other-mode", f"{what} {other} payments only, and this is a {who.mode} key", field="lane"
        )


def own_merchant(fields: dict[str, Any], who: Caller) -> dict[str, Any]:
    """A create's fields with the key's merchant. Raises Problem 422 where they name another."""
    named = fields.get("merchant_id")
    if named is not None and named != who.merchant_id:
        raise Problem(422, "invalid-field", "must be absent, or the merchant of the API key", field="merchant_id")
    return {**fields, "merchant_id": who.merchant_id}
