"""W3C trace context: whose trace this work belongs to, from a request's header over Kafka's to the provider's.

Nothing here makes spans, so the context is passed on as it came, as the recommendation asks of such parties. Its
``tracestate`` is not: free text of strangers has no business in topics.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from ops.kafka.message import Message
from schemas.card_number import holds_card_number

HEADER: Final = "traceparent"
CURRENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The context of the request or record that this task works on; what it starts inherits it."""

_CONTEXT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]{13}")
_LONGEST: Final = 512
_NAMES: Final = frozenset({HEADER, HEADER.encode()})
_OWN_VERSION: Final = "00"

Headers = Iterable[tuple[Any, Any]] | Mapping[Any, Any] | None
"""Headers of a Kafka record, as clients give them, or of an ASGI scope."""
Publish = Callable[[list[Message]], Awaitable[None]]


def parse(value: object) -> str | None:
    """The context in a header's value; None where it is none: the work then belongs to no trace.

    Of a later version of the format, what version 00 says of it.
    """
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    found = _CONTEXT.fullmatch(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == "ff" or (version == _OWN_VERSION and more) or not trace.strip("0") or not parent.strip("0"):
        return None
    if any(_DIGITS.search(part) and holds_card_number(part) for part in (trace, parent)):
        return None
    return f"{_OWN_VERSION}-{trace}-{parent}-{flags}"


def of(headers: Headers) -> str | None:
    """The context in these headers; None where there is none, or more than one."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    found = [value for name, value in pairs if name in _NAMES]
    return parse(found[0]) if len(found) == 1 else None


def outgoing() -> dict[str, str]:
    """The header of a request that belongs to the current work."""
    context = CURRENT.get()
    return {HEADER: context} if context else {}


def marked(message: Message, context: str | None) -> Message:
    """The record with the context in its headers, in place of any other."""
    if context is None:
        return message
    rest = tuple(pair for pair in message.headers if pair[0] != HEADER)
    return message._replace(headers=(*rest, (HEADER, context.encode())))


def carrying(publish: Publish) -> Publish:
    """A way to publish that marks each record with the current context."""

    async def publishing(messages: list[Message]) -> None:
        context = CURRENT.get()
        await publish([marked(message, context) for message in messages] if context else messages)

    return publishing
