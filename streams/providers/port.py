"""Port of a provider: two requests, six outcomes. Adapters only translate; retries and limits are the stream's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from schemas.records import PaymentTask
from streams.errors import PermitExpired

__all__ = ["BeforeWrite", "Outcome", "OutcomeKind", "PermitExpired", "Provider"]

BeforeWrite = Callable[[], Awaitable[None]]
"""Awaited once a call, on an open connection, just before the request's first byte: returns when the slot has begun.

Raises PermitExpired where it is too late: then nothing may be written.
"""


class OutcomeKind(StrEnum):
    """What a call led to; a closed set."""

    APPROVED = "approved"
    DECLINED = "declined"
    RETRYABLE = "retryable"
    """A definite refusal for now: 429, the provider's own 503, no connection."""
    UNKNOWN = "unknown"
    """It may have happened: no answer, a reset, another 5xx, nonsense."""
    REJECTED = "rejected"
    """Our request is wrong; no retry will mend it."""
    ABSENT = "absent"
    """To a status call: no such charge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A call's outcome. ``sent``: whether any of the request was written. ``reason`` is a code, ``detail`` masked."""

    kind: OutcomeKind
    reason: str | None = None
    detail: str | None = None
    provider_charge_id: str | None = None
    retry_after_s: float | None = None
    sent: bool = True


class Provider(Protocol):
    """One provider account. An async context manager. ``charge`` and ``status`` raise PermitExpired and nothing else.

    The connection is opened before ``before_write`` is awaited, so what it takes to open it is not taken from the slot.

    ``key_lifetime_s`` is how long the provider honours an idempotency key; None: it has no idempotency at all.
    """

    key_lifetime_s: float | None

    async def charge(self, task: PaymentTask, *, idempotency_key: str, before_write: BeforeWrite) -> Outcome:
        """Ask for the charge."""
        ...

    async def status(self, task: PaymentTask, *, idempotency_key: str, before_write: BeforeWrite) -> Outcome:
        """Ask what became of an earlier charge under this key."""
        ...

    async def __aenter__(self) -> Self:
        """Open; connects nothing yet."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...
