"""Adapter of the provider simulator: HTTP in its shape, outcomes out. As strict as any provider's adapter has to be."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
import re
import socket
import struct
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import httpx2

from ops import trace
from schemas.lanes import Lane
from schemas.records import PaymentTask
from streams.errors import PermitExpired
from streams.providers.port import BeforeWrite, Outcome, OutcomeKind

MAX_ANSWER: Final = 64 * 1024
CONNECT_S: Final = 2.0
LONGEST_RETRY_AFTER_S: Final = 3600.0
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_REASON: Final = re.compile(r"[a-z][a-z_]{0,63}", re.ASCII)
_MEANINGS: Final = {
    HTTPStatus.CONFLICT.value: (OutcomeKind.RETRYABLE, "key-in-use"),  # an earlier request of ours is still running
    HTTPStatus.TOO_MANY_REQUESTS.value: (OutcomeKind.RETRYABLE, "rate-limited"),
    HTTPStatus.SERVICE_UNAVAILABLE.value: (OutcomeKind.RETRYABLE, "unavailable"),
}
_OUR_FAULT: Final = frozenset(range(400, 500)) - {HTTPStatus.REQUEST_TIMEOUT, *_MEANINGS}
"""A request that was wrong charged nobody; that the question after it was wrong says nothing about the charge."""
_NOTHING_LATER: Final = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""Closing a connection throws away what the kernel has not sent yet. Else a network that stalls sends the requests of
calls that have timed out later, all at once, beside those that follow."""
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
            transport=transport
            or httpx2.AsyncHTTPTransport(
                limits=httpx2.Limits(max_connections=1024, max_keepalive_connections=32, keepalive_expiry=30),
                socket_options=[_NOTHING_LATER],
                trust_env=False,
            ),
            timeout=httpx2.Timeout(self._call_s, connect=min(CONNECT_S, self._call_s)),
            follow_redirects=False,
            trust_env=False,
            headers={"Accept-Encoding": "identity"},
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
            headers={**self._named(idempotency_key), **trace.outgoing()},
            json={
                "reference": task.payment_id,
                "amount_minor": task.amount_minor,
                "currency": task.currency,
                "merchant_id": task.merchant_id,
                "payment_method": task.payment_method,
            },
        )
        return await self._send(request, task, before_write)

    def _named(self, idempotency_key: str) -> dict[str, str]:
        return {"Idempotency-Key": idempotency_key}

    async def status(self, task: PaymentTask, *, idempotency_key: str, before_write: BeforeWrite) -> Outcome:
        """GET /v1/charges/{key}; see the port."""
        request = self._client.build_request("GET", f"/v1/charges/{idempotency_key}", headers=trace.outgoing())
        return await self._send(request, task, before_write, asked=True)

    async def _send(
        self, request: httpx2.Request, task: PaymentTask, before_write: BeforeWrite, *, asked: bool = False
    ) -> Outcome:
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
        return answer(response.status_code, response.headers, body, task, asked=asked)


class KeylessSimulatorProvider(SimulatorProvider):
    """The simulator started with ``--keyless``: each request charges anew; a charge is found by its reference.

    So a payment's request is sent once, whatever the answer; then it is asked for, and where it is absent a person
    decides. Our idempotency key is the reference.
    """

    key_lifetime_s: float | None = None

    def _named(self, idempotency_key: str) -> dict[str, str]:  # noqa: ARG002 - there are none
        return {}


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


def answer(status: int, headers: Mapping[str, str], body: bytes, task: PaymentTask, *, asked: bool = False) -> Outcome:
    """The outcome of a whole answer; total over all status codes. ``asked``: it answers a status call."""
    if status in (HTTPStatus.OK, HTTPStatus.CREATED):
        return _charge(body, task)
    if asked and status == HTTPStatus.NOT_FOUND and isinstance(_object(body).get("error"), str):
        return Outcome(kind=OutcomeKind.ABSENT, reason="absent")
    kind, reason = _MEANINGS.get(status, (OutcomeKind.UNKNOWN, f"http-{status}"))
    if status in _OUR_FAULT and not asked:
        kind = OutcomeKind.REJECTED
    wait_s = 1.0 if status == HTTPStatus.CONFLICT else retry_after(headers.get("retry-after"))
    return Outcome(kind=kind, reason=reason, retry_after_s=wait_s if kind is OutcomeKind.RETRYABLE else None)


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object in these bytes; empty where there is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _charge(body: bytes, task: PaymentTask) -> Outcome:
    found = _object(body)
    kinds = {"approved": OutcomeKind.APPROVED, "declined": OutcomeKind.DECLINED}
    charge_id, status = found.get("id"), found.get("status")
    if not isinstance(charge_id, str) or not _ID.fullmatch(charge_id) or not isinstance(status, str):
        return Outcome(kind=OutcomeKind.UNKNOWN, reason="nonsense")
    asked = {"reference": task.payment_id, "amount_minor": task.amount_minor, "currency": task.currency}
    if any(type(found.get(name)) is not type(value) or found[name] != value for name, value in asked.items()):
        return Outcome(kind=OutcomeKind.UNKNOWN, reason="provider-mismatch")
    if status not in kinds:
        return Outcome(kind=OutcomeKind.UNKNOWN, reason="nonsense")
    return Outcome(
        kind=kinds[status],
        reason=_code(found.get("reason")) if status == "declined" else None,
        provider_charge_id=charge_id,
    )


def _code(reason: Any) -> str | None:
    """A provider's reason code, where it is one: it is stored and shown, and must not bring anything else along."""
    return reason if isinstance(reason, str) and _REASON.fullmatch(reason) else None


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
