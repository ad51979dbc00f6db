"""The simulator's HTTP side: POST and GET charges, /healthz, /observed.

A request's arrival is taken before parsing and before any queue of ours, see ``ops.simulator.arrival``.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ops.simulator import arrival
from ops.simulator.provider import Observed, Provider
from ops.simulator.tokens import TOKENS

MAX_BODY: Final = 64 * 1024
HOLD_S: Final = 60.0
LATE_S: Final = 2.0
HUGE: Final = 100 * 1024 * 1024
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_STRINGS = ("reference", "currency", "merchant_id", "payment_method")


class _Handler(RequestHandler):
    """Notes when a request's first bytes arrive; :meth:`Simulator.handle` takes the note once the body is read.

    Taken sooner, a body that comes in a segment of its own would stand as the arrival of the connection's next request.
    """

    __slots__ = ("arrived_ns", "came_ns")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.arrived_ns = self.came_ns = 0

    def data_received(self, data: bytes) -> None:
        if self.arrived_ns == 0:
            self.arrived_ns = self.came_ns
        super().data_received(data)


class _Server(web.Server):
    def __call__(self) -> Any:
        return arrival.Noting(_Handler(self, loop=asyncio.get_running_loop(), **self._kwargs))


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, error: str, retry_after_s: float | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.retry_after_s = retry_after_s


class Simulator:
    """Handles requests; one instance, one provider."""

    def __init__(self, provider: Provider, latency_s: float) -> None:
        self._provider = provider
        self._latency_s = latency_s

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Serve on this address, port 0 for any; the port. Raises OSError where it is taken."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with arrival.noting(socket.create_server((host, port), family=family)) as listener:
            runner = web.ServerRunner(_Server(self.handle), access_log=None, shutdown_timeout=1)
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                yield int(listener.getsockname()[1])
            finally:
                await runner.cleanup()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        arrived_ns = request.protocol.arrived_ns or time.monotonic_ns()  # type: ignore[attr-defined]
        try:
            return await self._handle(request, arrived_ns)
        finally:
            _take_note(request)

    async def _handle(self, request: web.BaseRequest, arrived_ns: int) -> web.StreamResponse:
        if request.method == "GET" and request.path == "/healthz":
            return web.json_response({"status": "ok"})
        if request.method == "GET" and request.path == "/observed":
            return web.json_response(self._provider.dump())
        key = request.headers.get("Idempotency-Key")
        seen = Observed(arrived_ns, request.method, request.path, key, "")
        seen.traceparent = request.headers.get("traceparent")
        self._provider.observe(seen)
        try:
            response = await self._charges(request, seen)
        except Refusal as refusal:
            seen.status = refusal.status
            headers = {} if refusal.retry_after_s is None else {"Retry-After": str(int(refusal.retry_after_s) + 1)}
            return web.json_response({"error": refusal.error}, status=refusal.status, headers=headers)
        seen.status = response.status
        return response

    async def _charges(self, request: web.BaseRequest, seen: Observed) -> web.StreamResponse:
        wait_s = self._provider.over_limit(seen.arrived_ns)
        body = await _body(request)
        _take_note(request)
        seen.body_sha256 = hashlib.sha256(body).hexdigest()
        if wait_s is not None:
            raise Refusal(429, "too many requests", wait_s)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if request.method == "GET" and request.path.startswith("/v1/charges/"):
            return self._status(request.path.removeprefix("/v1/charges/"))
        if request.method == "POST" and request.path == "/v1/charges":
            return await self._create(request, seen, body)
        raise Refusal(404, "no such resource")

    def _status(self, key: str) -> web.Response:
        charge = self._provider.charges.get(key)
        if charge is None:
            raise Refusal(404, "no charge under this key")
        return web.json_response(_shown(charge))

    async def _create(self, request: web.BaseRequest, seen: Observed, body: bytes) -> web.StreamResponse:
        if not self._provider.keyless and (seen.key is None or not _KEY.fullmatch(seen.key)):
            raise Refusal(400, "Idempotency-Key must be 1 to 255 visible ASCII characters")
        fields = _fields(body)
        seen.reference, seen.amount_minor = fields["reference"], fields["amount_minor"]
        if self._provider.keyless or seen.key is None:
            return await self._act(request, fields["reference"], fields)
        if self._provider.bodies.setdefault(seen.key, seen.body_sha256) != seen.body_sha256:
            raise Refusal(422, "the key was used with another body")
        if seen.key in self._provider.in_use:
            raise Refusal(409, "a request with this key is still running")
        self._provider.in_use.add(seen.key)
        try:
            return await self._act(request, seen.key, fields)
        finally:
            self._provider.in_use.discard(seen.key)

    async def _act(  # noqa: PLR0911, PLR0912, C901 - one branch a token
        self, request: web.BaseRequest, key: str, fields: dict[str, Any]
    ) -> web.StreamResponse:
        provider, token = self._provider, fields["payment_method"]
        provider.tries[key] += 1
        tries, known = provider.tries[key], key in provider.charges
        if token == "pm_500":
            raise Refusal(500, "something broke")
        if token == "pm_503_twice" and tries <= 2:  # noqa: PLR2004
            raise Refusal(503, "try again later")
        if token == "pm_429" and tries == 1:
            raise Refusal(429, "too many requests", 0.5)
        if token == "pm_timeout_not_charged" and tries == 1:
            provider.in_use.discard(key)
            return await _hold(request)
        if token == "pm_late" and tries == 1:
            provider.in_use.discard(key)
            book = functools.partial(provider.book, key, fields, status="approved")
            asyncio.get_running_loop().call_later(LATE_S, book)
            return await _hold(request)
        if token == "pm_slow_5s" and not known:
            await asyncio.sleep(5)
        if token == "pm_decline":
            return _answer(provider.book(key, fields, status="declined", reason="insufficient_funds"))
        if token not in TOKENS:
            return _answer(provider.book(key, fields, status="declined", reason="unknown_payment_method"))
        charge = provider.book(key, fields, status="approved")
        if token == "pm_500_stored":
            raise Refusal(500, "something broke, and is remembered under this key")
        if tries == 1:
            if token == "pm_timeout_charged":
                provider.in_use.discard(key)
                return await _hold(request)
            if token == "pm_reset" and request.transport is not None:
                request.transport.abort()
        if token == "pm_garbage":
            return web.Response(body=b"<html>\xff\xfe all is well", status=201, content_type="text/html")
        if token == "pm_mismatch":
            return web.json_response({**_shown(charge), "amount_minor": charge.amount_minor + 1}, status=201)
        if token == "pm_huge":
            return await _huge(request)
        return _answer(charge)


def _take_note(request: web.BaseRequest) -> None:
    protocol: Any = request.protocol
    if protocol is not None:
        protocol.arrived_ns = 0


async def _body(request: web.BaseRequest) -> bytes:
    found = bytearray()
    async for chunk in request.content.iter_any():
        found += chunk
        if len(found) > MAX_BODY:
            raise Refusal(413, "the body is too large")
    return bytes(found)


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(fields, dict):
        raise Refusal(400, "the body is not a JSON object")
    for name in _STRINGS:
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise Refusal(400, f"{name} must be a string")
    amount = fields.get("amount_minor")
    if not isinstance(amount, int) or isinstance(amount, bool) or amount <= 0:
        raise Refusal(400, "amount_minor must be a positive whole number")
    return fields


def _shown(charge: Any) -> dict[str, Any]:
    names = ("id", "status", "reason", "reference", "amount_minor", "currency")
    return {name: getattr(charge, name) for name in names}


def _answer(charge: Any) -> web.Response:
    return web.json_response(_shown(charge), status=201)


async def _hold(request: web.BaseRequest) -> web.StreamResponse:
    """Say nothing until the client gives up, or a minute has passed."""
    end = time.monotonic() + HOLD_S
    while time.monotonic() < end and request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.05)
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=504)


async def _huge(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(status=201)
    response.content_length = HUGE
    await response.prepare(request)
    block = bytes(65536)
    for _ in range(HUGE // len(block)):
        await response.write(block)
        await asyncio.sleep(0)  # whoever reads fast would have the process for itself, and others' calls arrive late
    return response
