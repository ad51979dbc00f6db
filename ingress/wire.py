"""Bounds on what a connection may send before and around a body; uvicorn's parser has none of its own."""

from __future__ import annotations

import secrets
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingress import problem
from ingress.one_write import OneWrite
from ingress.problem import Problem
from ingress.security_headers import NOTHING, SAFE

HEAD_BYTES: Final = 16 * 1024
HEAD_FIELDS: Final = 100
HEAD_S: Final = 10.0
"""From a connection's opening, or a request's first byte, to the end of the request's headers."""
IDLE_S: Final = 95
"""A connection between two requests. Longer than many clients and load balancers keep one by default (httpx 5 s, nginx
and AWS ALB 60 s, Go 90 s), so that they are the ones who close it: a request that meets the server's closing has no
answer. Who keeps them longer has to be told to close them sooner."""
MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""All of one request: headers, body, chunk framing, trailers. A body's own limit is much lower, and answered."""


class TooMuch(Exception):
    """A request whose head is over a bound."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, bounded."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._in_head = False
        self._in_message = self._ended = False
        self._head_bytes = 0
        self._message_bytes = 0
        self._too_much = False
        self._late: Any = None

    def connection_made(self, transport: Any) -> None:
        """A client is there; its first request must come soon."""
        one = OneWrite(transport, self.loop)
        super().connection_made(one)  # type: ignore[arg-type]  # it is all that uvicorn asks of a transport
        self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._in_time()
        self._unset_keepalive_if_required()  # uvicorn's own leaves it where the client has reset the connection
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; close what grows without end or dawdles."""
        was_in_head, self._ended = self._in_head, False
        self._message_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and was_in_head:
            self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._too_much = True
            self.send_400_response("")
        elif self._message_bytes > MESSAGE_BYTES:
            self.transport.close()
        elif self.cycle is None or self.cycle.response_complete:
            self._wait_for_more()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._head_bytes = self._message_bytes = 0

    def on_headers_complete(self) -> None:
        """Raising here makes the parser stop, and data_received answer."""
        self._in_head = False
        self._head_bytes = 0
        self._in_time()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES or len(self.headers) > HEAD_FIELDS:
            self._too_much = True
            raise TooMuch
        self.scope["kifiya.abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]  # ASGI lets servers add keys
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request's last byte."""
        self._in_message, self._ended = False, True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer's last byte; the request may still be on its way, or the next one have begun."""
        super().on_response_complete()
        if self._in_message and self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._wait_for_more()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, in no problem's shape
        """The answer to what is not HTTP, as a problem like all others."""
        if self._too_much:
            found = Problem(431, "headers-too-large", f"at most {HEAD_FIELDS} headers and {HEAD_BYTES} bytes of them")
        else:
            found = Problem(400, "invalid-http", "this is not a valid HTTP/1.1 request")
        body = orjson.dumps(problem.document(found))
        said = [
            (b"content-type", problem.MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *self.server_state.default_headers,
            *SAFE,
            NOTHING,
            (b"x-request-id", secrets.token_hex(8).encode()),
        ]
        head = f"HTTP/1.1 {found.status} {problem.document(found)['title']}\r\n".encode()
        head += b"".join(name + b": " + value + b"\r\n" for name, value in said)
        self.transport.write(head + b"\r\n" + body)
        self.transport.close()

    def _wait_for_more(self) -> None:
        """Nothing is in hand. What came is a beginning, or the rest of what was answered before it had come."""
        if self._ended and not self._in_message:  # data makes uvicorn forget that it waits
            self._in_time()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self._late is None:  # blank lines are no request, and prolong nothing
            self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
