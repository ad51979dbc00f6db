"""The shapes of lists, audit trails and cancels, for the API's documentation only."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ingress import filters
from ingress.models import ID, NewPayment, Payment, ProblemDetails
from ingress.problem import Problem, document

_PAYMENT: Final = Payment.model_json_schema()["examples"][0]
_CURSOR: Final = "Aa1fX3t3vP0uAAZGEgkcsAA3jKGTSU9Y55HigLysBsm4"


class PaymentList(BaseModel):
    """A page of payments, from the newest to the oldest."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"payments": [_PAYMENT], "next_cursor": _CURSOR}]})
    payments: list[Payment]
    next_cursor: str | None
    """Where the next page begins. Null is the end; a page that is short, or empty, is not."""


class Event(BaseModel):
    """One change of a payment, or one step of a call to its provider."""

    version: int
    type: Literal["state_changed", "call_intended", "call_finished", "call_not_sent", "cancel_refused"]
    status: Literal["PENDING", "PROCESSING", "UNKNOWN", "REVIEW", "COMPLETED", "FAILED", "CANCELLED"]
    attempt: int
    call: Literal["charge", "status"] | None
    outcome: Literal["approved", "declined", "retryable", "unknown", "rejected", "absent"] | None
    reason: str | None
    detail: str | None
    provider_charge_id: str | None
    replay_id: str | None
    lane: str
    at: str
    sent_at_us: int | None
    topic: str
    partition: int
    offset: int
    traceparent: str | None = Field(description="W3C trace context of the request that led to it, where it named one.")


class Events(BaseModel):
    """A payment's audit trail: what happened, in order, and where in Kafka it stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "payment_id": ID, "status": "PENDING", "version": 1, "next_after": None,
                    "events": [
                        {
                            "version": 1, "type": "state_changed", "status": "PENDING", "attempt": 0, "call": None,
                            "outcome": None, "reason": None, "detail": None, "provider_charge_id": None,
                            "replay_id": None, "lane": "simulator", "at": "2026-01-31T12:00:00.000Z",
                            "sent_at_us": None, "topic": "payments.events", "partition": 3, "offset": 41,
                            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                        }
                    ],
                }
            ]
        }
    )  # fmt: skip
    payment_id: str
    status: Literal["PENDING", "PROCESSING", "UNKNOWN", "REVIEW", "COMPLETED", "FAILED", "CANCELLED"]
    version: int
    events: list[Event]
    next_after: int | None
    """``after`` of the next page; null at the end of what is known."""


def _dumped(fields: dict[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))


def _query(name: str, description: str, schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {
        "name": name, "in": "query", "required": False, "description": description, "schema": schema, "example": example
    }  # fmt: skip


_MOMENT: Final = {"type": "string", "format": "date-time"}
LIST: Final[dict[str, Any]] = {
    "parameters": [
        _query(
            "status", "Payments in this state.",
            {"type": "string", "enum": list(Payment.model_json_schema()["properties"]["status"]["enum"])}, "FAILED",
        ),
        _query("lane", "Payments of this lane.",
               {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$"}, "simulator"),
        _query("customer_id", "Payments of this customer.",
               {"type": "string", "minLength": 1, "maxLength": 128}, "cust_7"),
        _query(
            "metadata",
            "Payments with this metadata key, or with this value of it: key=value. "
            f"Up to {filters.METADATA_MAX} times; all must hold.",
            {"type": "array", "maxItems": filters.METADATA_MAX,
             "items": {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,40}(=.{0,500})?$"}}, ["order=1001"],
        ),
        _query("created_from", "Accepted at this moment or later, RFC 3339.", _MOMENT, "2026-01-31T00:00:00Z"),
        _query("created_before", "Accepted before this moment, RFC 3339.", _MOMENT, "2026-02-01T00:00:00Z"),
        _query("limit", "Payments of a page, at most.",
               {"type": "integer", "minimum": 1, "maximum": filters.LIMIT_MAX, "default": filters.LIMIT}, 20),
        _query("cursor", "The next_cursor of the page before, with the same filters.",
               {"type": "string", "minLength": 44, "maxLength": 44}, _CURSOR),
    ]
}  # fmt: skip
EVENTS: Final[dict[str, Any]] = {
    "parameters": [
        _query("after", "Events of higher versions only: next_after of the page before.",
               {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "default": 0}, 0),
        _query("limit", "Events of a page, at most.",
               {"type": "integer", "minimum": 1, "maximum": filters.LIMIT_MAX, "default": filters.LIMIT_MAX}, 100),
    ]
}  # fmt: skip


class NewLine(NewPayment):
    """One line of a batch: a create with its key."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={})
    idempotency_key: str = Field(pattern="^[\\x21-\\x7e]{1,255}$", examples=["order-1001"])


class Line(BaseModel):
    """One answer: what a request of the line's own would have been given."""

    line: int = Field(description="The line's number, from 1.")
    status: int = Field(description="201, 200 or 409 with a payment; any other, and 409 too, with a problem.")
    payment: Payment | None = None
    problem: ProblemDetails | None = None
    replayed: bool = Field(default=False, description="The payment was there before.")
    retry_after_s: int | None = None


_KIND: Final = "application/x-ndjson"
_NEW: Final = {**NewPayment.model_json_schema()["examples"][0], "idempotency_key": "order-1001"}
_REFUSED: Final = document(Problem(422, "invalid-field", "must be greater than zero", field="amount"))
BATCH: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "Up to 1,000 lines, each a create with its idempotency_key, of at most 64 KiB; 3 MiB in all.",
        "content": {_KIND: {"schema": {"type": "string"}, "example": f"{_dumped(_NEW)}\n"}},
    }
}
BATCH_200: Final[dict[str, Any]] = {
    "description": "One answer a line, in order.",
    "content": {
        _KIND: {
            "schema": {"type": "string"},
            "example": "".join(
                f"{_dumped(each)}\n"
                for each in (
                    {"line": 1, "status": 201, "payment": _PAYMENT},
                    {"line": 2, "status": 422, "problem": _REFUSED},
                )
            ),
        }
    },
}
