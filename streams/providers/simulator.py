"""Adapter of the provider simulator: HTTP in its shape, outcomes out. As strict as any provider's adapter has to be."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx2

from schemas.lanes import Lane
from schemas.records import PaymentTask
from streams.errors import PermitExpired
from streams.providers.port import BeforeWrite, Outcome, OutcomeKind

MAX_ANSWER: Final = 64 * 1024
CONNECT_S: Final = 2.0
LONGEST_RETRY_AFTER_S: Final = 3600.0
_FIRST_BYTE: Final = "http11.send_request_headers.started"


class _AnswerTooLarge(Exception):
    """More than ``MAX_ANSWER`` bytes."""


class SimulatorProvider:
    """The simulator as a provider: idempotent by key, for a day."""

    key_lifetime_s: float | None = 24 * 3600.0

    def __init__(self, lane: Lane, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        if not lane.url:
            raise ValueError(f"lane {lane.name!r}: url is missing (or SIMULATOR_URL)")
        self._call_s = lane.call_timeout_ms / 1000
        self._client = httpx2.AsyncClient(
            base_url=lane.url,
            transport=transport,
            timeout=httpx2.Timeout(self._call_s, connect=min(CONNECT_S, self._call_s)),
            limits=httpx2.Limits(max_connections=1024, max_keepalive_connections=32, keepalive_expiry=30),
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def charge(self, task: PaymentTask, *, idempotency_key: str, before_write: BeforeWrite) -> Outcome:
        """POST /v1/charges; see the port."""
        request = self._client.build_request(
            "POST",
            "/v1/charges",
            headers={"Idempotency-Key": idempotency_key},
            json={
                "reference": task.payment_id,
                "amount_minor": task.amount_minor,
                "currency": task.currency,
                "merchant_id": task.merchant_id,
                "payment_method": task.payment_method,
            },
        )
        return await self._send(request, task, before_write)

    async def status(self, task: PaymentTask, *, idempotency_key: str, before_write: BeforeWrite) -> Outcome:
        """GET /v1/charges/{key}; see the port."""
        request = self._client.build_request("GET", f"/v1/charges/{idempotency_key}")
        outcome = await self._send(request, task, before_write)
        if outcome.kind is OutcomeKind.REJECTED and outcome.reason == "http-404":
            return Outcome(kind=OutcomeKind.ABSENT, reason="absent")
        return outcome

    async def _send(self, request: httpx2.Request, task: PaymentTask, before_write: BeforeWrite) -> Outcome:
        sent = False

        async def trace(name: str, _: Mapping[str, Any]) -> None:
            nonlocal sent
            if name == _FIRST_BYTE:
                await before_write()
                sent = True
                deadline.reschedule(asyncio.get_running_loop().time() + self._call_s)

        request.extensions["trace"] = trace
        try:
            # Until the first byte the connect timeout and the permit bound it.
            async with asyncio.timeout(None) as deadline:
                response = await self._client.send(request, stream=True)
                try:
                    body = await _bounded(response)
                finally:
                    await response.aclose()
        except PermitExpired:
            raise
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError, _AnswerTooLarge) as error:
            return failure(error, sent=sent)
        return answer(response.status_code, response.headers, body, task)


async def _bounded(response: httpx2.Response) -> bytes:
    found = bytearray()
    async for chunk in response.aiter_raw():
        found += chunk
        if len(found) > MAX_ANSWER:
            raise _AnswerTooLarge
    return bytes(found)


def failure(error: Exception, *, sent: bool) -> Outcome:
    """No whole answer came. Before the first byte nothing can have happened; after it anything can."""
    if not sent:
        return Outcome(kind=OutcomeKind.RETRYABLE, reason="not-connected", detail=type(error).__name__, sent=False)
    reason = "reset"
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        reason = "timeout"
    elif isinstance(error, _AnswerTooLarge):
        reason = "answer-too-large"
    return Outcome(kind=OutcomeKind.UNKNOWN, reason=reason, detail=type(error).__name__)


def answer(status: int, headers: Mapping[str, str], body: bytes, task: PaymentTask) -> Outcome:
    """The outcome of a whole answer; total over all status codes."""
    if status in (200, 201):
        return _charge(body, task)
    if status in (429, 503):
        return Outcome(
            kind=OutcomeKind.RETRYABLE,
            reason="rate-limited" if status == 429 else "unavailable",  # noqa: PLR2004
            retry_after_s=retry_after(headers.get("retry-after")),
        )
    if status == 409:  # noqa: PLR2004 - the key is in use: an earlier request of ours is still running
        return Outcome(kind=OutcomeKind.RETRYABLE, reason="key-in-use", retry_after_s=1.0)
    if 400 <= status < 500:  # noqa: PLR2004
        return Outcome(kind=OutcomeKind.REJECTED, reason=f"http-{status}")
    return Outcome(kind=OutcomeKind.UNKNOWN, reason=f"http-{status}")


def _charge(body: bytes, task: PaymentTask) -> Outcome:
    nonsense = Outcome(kind=OutcomeKind.UNKNOWN, reason="nonsense")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return nonsense
    if not isinstance(found, dict) or not isinstance(found.get("id"), str) or not found["id"]:
        return nonsense
    asked = {"reference": task.payment_id, "amount_minor": task.amount_minor, "currency": task.currency}
    if any(found.get(name) != value for name, value in asked.items()):
        return Outcome(kind=OutcomeKind.UNKNOWN, reason="provider-mismatch")
    kinds = {"approved": OutcomeKind.APPROVED, "declined": OutcomeKind.DECLINED}
    kind = kinds.get(found.get("status", ""))
    if kind is None:
        return nonsense
    reason = found.get("reason")
    return Outcome(
        kind=kind,
        reason=reason[:64] if kind is OutcomeKind.DECLINED and isinstance(reason, str) else None,
        provider_charge_id=found["id"][:128],
    )


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3): a number or an HTTP date, at most an hour; None: unusable."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), LONGEST_RETRY_AFTER_S)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    seconds = (moment - dt.datetime.now(dt.UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
