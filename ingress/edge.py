"""What every request meets first and every answer last: its id, safe headers, counts, and no traceback."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import structlog
from prometheus_client import Counter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ingress import problem
from ingress.gate import Gate
from ingress.problem import Problem
from ingress.rates import Header, Rates
from ingress.security_headers import NOTHING, PAGE, SAFE
from ingress.sent import Sent, sent
from ingress.tenants import CALLER, Tenants
from ops import trace
from ops.telemetry import logger
from schemas.card_number import holds_card_number

ANSWERS: Final = Counter("kifiya_ingress_answers", "Answers by route and status code.", ["route", "code"])

PAGES: Final = frozenset({"/docs", "/asyncapi"})
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,64}")
_GONE: Final = 499
"""What the client that left would have been answered, in the counts (nginx's number)."""

_STOPPING: Final = Problem(503, "stopping", "the gateway stops; send the same key again", retry_after_s=1, close=True)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class _Answer:
    """Sends one request's answer on, with our headers; ``status`` is 0 until it has begun."""

    def __init__(self, send: Send, request_id: bytes, policy: tuple[bytes, bytes]) -> None:
        self._send = send
        self._headers = [*SAFE, policy, (b"x-request-id", request_id)]
        self.status = 0

    def add(self, headers: list[Header]) -> None:
        """Send these with it, too."""
        self._headers += headers

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], *self._headers]}
        await self._send(message)


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A route that is served from here: the router's layers would cost as much as its whole work.

    ``serve`` returns a response for every Problem; anything else that it raises the edge answers, as a defect. The
    router's own route of this path stays, for OpenAPI, and serves where the app stands under a root path.
    """

    path: str
    serve: Callable[[Request], Awaitable[Response]]
    method: str = "POST"


class Edge:
    """ASGI middleware, outermost of ours."""

    def __init__(  # noqa: PLR0913 - what every request meets
        self,
        app: Any,
        *,
        gate: Gate,
        tenants: Tenants,
        rates: Rates,
        access_log: bool,
        shortcuts: Iterable[Shortcut] = (),
    ) -> None:
        self._app = app
        self._shortcuts = {(each.method, each.path): each for each in shortcuts}
        self._gate = gate
        self._tenants = tenants
        self._rates = rates
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        brought = sent(scope)
        request_id = _request_id(brought)
        context = trace.of(scope["headers"])
        trace.CURRENT.set(context)
        structlog.contextvars.bind_contextvars(request_id=request_id.decode(), traceparent=context)
        if scope["method"] == "HEAD":  # answered like a GET; the server's own scope says HEAD still: it sends no body
            scope = {**scope, "method": "GET", "kifiya.head": True}
        answer = _Answer(send, request_id, PAGE if scope["path"] in PAGES else NOTHING)
        try:
            await self._serve(scope, receive, answer, brought)
        finally:
            _answers(_route(scope), answer.status).inc()
            if self._access_log:
                took_ms = round((time.perf_counter() - began) * 1000, 1)
                logger().info(
                    "request", action="request", path=_route(scope), status=answer.status, duration_ms=took_ms
                )

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer, brought: Sent) -> None:
        """Serve; what goes wrong is answered too, where no answer has begun."""
        try:
            if scope["path"].startswith("/v1/"):
                self._gate.check()
                who = scope[CALLER] = await self._tenants.authenticate(brought.values(b"authorization"))
                answer.add(self._rates.take(who))
            shortcut = None if scope.get("root_path") else self._shortcuts.get((scope["method"], scope["path"]))
            if shortcut is None:
                await self._app(scope, receive, answer)
            else:
                scope["route"] = shortcut
                found = await shortcut.serve(Request(scope, receive))
                await found(scope, receive, answer)
        except Problem as full:
            await problem.response(full)(scope, receive, answer)
        except ClientDisconnect:
            answer.status = _GONE
        except asyncio.CancelledError:
            if not answer.status:
                await problem.response(_STOPPING)(scope, receive, answer)
        except Exception as error:  # a defect of ours: strangers learn nothing, the log its kind only
            logger().error("a request failed", action="internal-error", path=_route(scope), error=_where(error))
            if answer.status:
                raise
            await problem.response(problem.DEFECT)(scope, receive, answer)


@lru_cache(maxsize=1024)
def _answers(route: str, status: int) -> Any:
    """Their count; to find it costs as much as to count."""
    return ANSWERS.labels(route, str(status))


def _request_id(brought: Sent) -> bytes:
    """The client's X-Request-Id where it is one short safe word and no card number, else a new one."""
    found = brought.values(b"x-request-id")
    if len(found) == 1 and _REQUEST_ID.fullmatch(found[0]) and not holds_card_number(found[0].decode()):
        return found[0]
    return secrets.token_hex(8).encode()


def _route(scope: Scope) -> str:
    """The route's template, never the path itself: that is the client's text."""
    route = scope.get("route")
    return str(getattr(route, "path", "none"))


def _where(error: BaseException) -> str:
    """The error's kind and place; its message may hold what a merchant sent."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace is not None else ""
    return type(error).__name__ + place
