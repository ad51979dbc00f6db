"""Headers that keep browsers from doing what nobody asked for, on every answer; CORS and HSTS where they are set."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

SAFE: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]
NOTHING: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""For what is no page."""
PAGE: Final = (
    b"content-security-policy",
    (
        b"default-src 'none'; frame-ancestors 'none'; connect-src 'self'; script-src 'self' 'unsafe-inline'; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data:"
    ),
)
"""For pages, whose files are all our own."""

ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
"""An origin as browsers send it: scheme, host and port, in lower case, without a path."""

_ALLOWED: Final = (
    b"Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, traceparent, tracestate, X-Request-Id"
)
_EXPOSED: Final = (
    b"Idempotency-Replayed, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, "
    b"X-Request-Id"
)
_PREFLIGHT_S: Final = b"600"


def hsts(max_age_s: int) -> list[tuple[str, str]]:
    """Strict-Transport-Security (RFC 6797), none for 0: for a gateway that is reached over TLS alone."""
    return [("strict-transport-security", f"max-age={max_age_s}; includeSubDomains")] if max_age_s else []


class Cors:
    """ASGI middleware, outermost: lets pages of these origins read our answers (the Fetch standard's CORS protocol).

    Never with cookies, and never for any origin: a page that may ask has a key, and keys belong to somebody.
    """

    def __init__(self, app: Any, *, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in origins}

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Answer a preflight, or serve a request and say who may read the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"])
        origin = sent.get(b"origin")
        shared = [(b"vary", b"Origin")]
        if origin in self._origins:
            shared += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]
        if scope["method"] == "OPTIONS" and origin and b"access-control-request-method" in sent:
            await send({"type": "http.response.start", "status": 204, "headers": [*SAFE, NOTHING, *_preflight(shared)]})
            await send({"type": "http.response.body"})
            return

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *shared]}
            await send(message)

        await self._app(scope, receive, answer)


def _preflight(shared: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What an answer to a preflight says; nothing of it where the origin is not one of ours, which is the refusal."""
    if len(shared) == 1:
        return shared
    return [
        *shared[:2],
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", _ALLOWED),
        (b"access-control-max-age", _PREFLIGHT_S),
    ]
