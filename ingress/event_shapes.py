"""The shapes of the live events, for the API's documentation."""

from __future__ import annotations

from typing import Any, Final

from ingress.models import ID

_CURSOR: Final = "AQAAKQAAAAAAAAAAAABu0sJe"

EVENT: Final[dict[str, Any]] = {
    "cursor": _CURSOR, "type": "state_changed", "status": "PENDING", "payment_id": ID, "merchant_id": "shop",
    "idempotency_key": "order-1001", "version": 1, "attempt": 0, "call": None, "outcome": None, "reason": None,
    "detail": None, "provider_charge_id": None, "replay_id": None, "lane": "simulator", "amount": "12.50",
    "currency": "USD", "at": "2026-01-31T12:00:00.000Z", "sent_at_us": None, "topic": "payments.events",
    "partition": 2, "offset": 40, "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}  # fmt: skip

_TEXT: Final = {"type": "string"}
_MAYBE: Final = {"type": ["string", "null"]}
_WHOLE: Final = {"type": "integer"}
_STATES: Final = ["PENDING", "PROCESSING", "UNKNOWN", "REVIEW", "COMPLETED", "FAILED", "CANCELLED"]
_TYPES: Final = ["state_changed", "call_intended", "call_finished", "call_not_sent", "cancel_refused"]
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": list(EVENT),
    "properties": {
        **dict.fromkeys(("payment_id", "merchant_id", "idempotency_key", "lane", "amount", "currency", "topic"), _TEXT),
        **dict.fromkeys(
            ("call", "outcome", "reason", "detail", "provider_charge_id", "replay_id", "traceparent"), _MAYBE
        ),
        **dict.fromkeys(("version", "attempt", "partition", "offset"), _WHOLE),
        "cursor": {"type": "string", "description": "Goes on after this event: `after`, or Last-Event-ID."},
        "type": {"type": "string", "enum": _TYPES},
        "status": {"type": "string", "enum": _STATES},
        "at": {"type": "string", "format": "date-time"},
        "sent_at_us": {"type": ["integer", "null"], "description": "When the call was written, epoch microseconds."},
    },
}
_PAGE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["events", "next", "more"],
    "properties": {
        "events": {"type": "array", "items": _EVENT},
        "next": {"type": "string", "description": "Goes on after this page; it is one too where no event was found."},
        "more": {"type": "boolean", "description": "Whether to ask again at once: the page may be empty all the same."},
    },
}

EVENTS_200: Final[dict[str, Any]] = {
    "description": "A page; or, asked for with `Accept: text/event-stream`, a stream that does not end by itself.",
    "content": {
        "application/json": {"schema": _PAGE, "example": {"events": [EVENT], "next": _CURSOR, "more": False}},
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": f'id: {_CURSOR}\nevent: state_changed\ndata: {{"payment_id":"{ID}","status":"PENDING"}}\n\n',
        },
    },
}
EVENTS_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "after", "in": "query", "required": False, "example": "beginning",
        "schema": {"type": "string", "default": "beginning"},
        "description": "A cursor; `beginning`: all that the topic holds; `latest`: what comes from now on.",
    },
    {
        "name": "limit", "in": "query", "required": False, "example": 100,
        "schema": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
        "description": "Events of a page, at most. A stream has no pages.",
    },
    {
        "name": "Last-Event-ID", "in": "header", "required": False, "example": _CURSOR, "schema": {"type": "string"},
        "description": "The last id of a stream, sent by an EventSource that reconnects; goes before `after`.",
    },
]  # fmt: skip
