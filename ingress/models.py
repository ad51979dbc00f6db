"""The shapes of the API, for its documentation only: schemas/command.py validates, for HTTP and Kafka alike."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ingress.prefer import WAIT_MAX_S
from ingress.problem import MEDIA_TYPE, Problem, document
from ingress.rates import Allowance, over
from ingress.tenants import INVALID, MISSING, UNCHECKED

ID: Final = "378ca193-494f-58e7-91e2-80bcac06c9b8"


class NewPayment(BaseModel):
    """The body of a create."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "merchant_id": "shop", "amount": "12.50", "currency": "USD", "payment_method": "pm_approve",
                    "customer_id": "cust_7", "description": "Order 1001", "metadata": {"order": "1001"},
                }
            ]
        },
    )  # fmt: skip
    merchant_id: str | None = Field(
        None,
        pattern="^[A-Za-z0-9_-]{1,64}$",
        examples=["shop"],
        description="The API key's merchant; may be absent.",
    )
    amount: str = Field(
        pattern="^[0-9]{1,18}([.][0-9]{1,18})?$",
        description="Decimal string, more than zero, with at most the currency's decimals.", examples=["12.50"],
    )  # fmt: skip
    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217", examples=["USD"])
    payment_method: str = Field(
        pattern="^[A-Za-z0-9_.:-]{1,128}$",
        description="Token of the provider, never a card number.", examples=["pm_approve"],
    )  # fmt: skip
    customer_id: str | None = Field(None, min_length=1, max_length=128, examples=["cust_7"])
    description: str | None = Field(None, min_length=1, max_length=500, examples=["Order 1001"])
    metadata: dict[str, str] | None = Field(None, max_length=20, description="At most 20 strings.")
    lane: str | None = Field(None, description="Provider account; the gateway's default where absent.")
    expires_at: str | None = Field(None, description="RFC 3339; past it the payment fails unless it was sent.")


class Queue(BaseModel):
    """A payment's place in its lane's queue, as it was a second ago at most.

    A retry's is the one it will have when it is due: its eta is never before its retry_at.
    """

    position: int | None = Field(
        description="1 is next: how many calls go before its own. Null where nobody can tell, see the reason."
    )
    eta: str | None = Field(description="When its provider is expected to be called, RFC 3339.")
    eta_s: float | None = Field(description="The same in seconds from now.")
    reason: Literal["breaker-open", "limiter-away", "no-worker", "retry-scheduled", "unknown"] | None = Field(
        description="Why there is no eta: the lane rests, it cannot be seen, or a retry is late or on its way."
    )


class Payment(BaseModel):
    """A payment as it stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "payment_id": ID, "status": "PENDING", "merchant_id": "shop", "amount": "12.50", "currency": "USD",
                    "payment_method": "pm_approve", "customer_id": "cust_7", "description": "Order 1001",
                    "metadata": {"order": "1001"}, "lane": "simulator", "expires_at": None, "attempts": 0,
                    "retry_at": None, "reason": None, "provider_charge_id": None,
                    "created_at": "2026-01-31T12:00:00.000Z", "updated_at": "2026-01-31T12:00:00.000Z", "version": 0,
                    "queue": {"position": 121, "eta": "2026-01-31T12:01:02.000Z", "eta_s": 61.6, "reason": None},
                }
            ]
        }
    )  # fmt: skip
    payment_id: str
    status: Literal["PENDING", "PROCESSING", "UNKNOWN", "REVIEW", "COMPLETED", "FAILED", "CANCELLED"]
    merchant_id: str
    amount: str
    currency: str
    payment_method: str
    customer_id: str | None
    description: str | None
    metadata: dict[str, str]
    lane: str
    expires_at: str | None
    attempts: int
    retry_at: str | None = Field(
        None, description="When its retry may run at the earliest; null where none is scheduled."
    )
    reason: str | None
    provider_charge_id: str | None
    created_at: str
    updated_at: str
    version: int = Field(description="Grows with each change; 0 is the payment as accepted.")
    queue: Queue | None = Field(description="Of a payment that waits for a call: PENDING, or UNKNOWN.")


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="A path in the body, such as metadata.order, or a header's or parameter's name.")
    detail: str
    code: str


class ProblemDetails(BaseModel):
    """An error, RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] | None = None


def problems(description: str, *examples: Problem) -> dict[str, Any]:
    """One entry of a route's ``responses``: the errors of one status code, each by example."""
    found: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
    if examples:
        found["examples"] = {example.code: {"value": document(example)} for example in examples}
    return {"description": description, "content": {MEDIA_TYPE: found}}


_REPLAYED: Final = {
    "Idempotency-Replayed": {"description": "true: nothing was published.", "schema": {"type": "string"}}
}
PAYMENT_201: Final[dict[str, Any]] = {
    "headers": {
        "Location": {"description": "The payment.", "schema": {"type": "string"}},
        "Preference-Applied": {
            "description": "wait=N, where Prefer asked for it: the answer came with the payment's end, or after N s.",
            "schema": {"type": "string"},
        },
    },
}
PAYMENT_200: Final[dict[str, Any]] = {
    "description": "With IDEMPOTENT_REPLAY=original only: the key and body were seen; the first answer again.",
    "headers": _REPLAYED,
}
PAYMENT_409: Final[dict[str, Any]] = {
    "description": "The key and body were seen: the existing payment as it stands now. Or the first request is still "
    "being published: a problem with Retry-After.",
    "headers": _REPLAYED,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/Payment"}},
        **problems("", Problem(409, "request-in-progress", "the first request with this key is still being published"))[
            "content"
        ],
    },
}
KEY_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "401": {
        **problems("No API key that is valid.", MISSING, INVALID),
        "headers": {"WWW-Authenticate": {"schema": {"type": "string"}}},
    },
    "403": problems(
        "The key lacks the scope that this needs.",
        Problem(403, "missing-scope", "the API key lacks the scope payments:write"),
    ),
    "429": {
        **problems("The merchant's rate limit is reached; nothing was accepted.", over(Allowance("1000/second"), 0)),
        "headers": {
            "RateLimit-Policy": {
                "description": "What the merchant may send: q requests in w seconds (the IETF's draft).",
                "schema": {"type": "string"}, "example": '"merchant";q=1000;w=1',
            },
            "RateLimit": {
                "description": "What is left: r requests, for t seconds; with every answer.",
                "schema": {"type": "string"}, "example": '"merchant";r=0;t=1',
            },
        },
    },
    "503": problems("The API key cannot be checked now.", UNCHECKED),
}  # fmt: skip
"""What every route under /v1 answers besides its own."""
CREATE: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "Idempotency-Key", "in": "header", "required": True, "example": "order-1001",
            "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
            "description": "Names this payment for ever: the same key and body again: 409 with the existing payment; "
            "another body: 422. A UUID is best; what is a card number, by a scheme's digits, is refused.",
        },
        {
            "name": "Prefer", "in": "header", "required": False, "example": "wait=10",
            "schema": {"type": "string"},
            "description": "wait=N (RFC 7240): answer when the payment has ended, or after N seconds (at most "
            f"{WAIT_MAX_S}) with the state as it is known then. A repeat does not wait.",
        },
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": NewPayment.model_json_schema()}},
    },
}  # fmt: skip
