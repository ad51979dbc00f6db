"""The payments resource: create and read."""

from __future__ import annotations

import math
import time
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, ConfigDict, Field

from ingress.acceptance import Acceptance, Answer
from ingress.idempotency import Away
from ingress.problem import MEDIA_TYPE, Problem
from ops.kafka.clients import PublishError
from schemas import command as commands
from schemas.command import MAX_BYTES, InvalidCommand
from schemas.strict_json import InvalidJson, loads

CREATES = Counter("kifiya_ingress_creates", "Creates by answer.", ["answer"])
TAKING = Histogram(
    "kifiya_ingress_create_seconds", "From the request's body to the answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2),
)  # fmt: skip

KEY_HEADER: Final = "idempotency-key"


class NewPayment(BaseModel):
    """The body of a create. Documentation only: schemas/command.py validates, for HTTP and Kafka alike."""

    model_config = ConfigDict(extra="forbid")
    merchant_id: str = Field(pattern="^[A-Za-z0-9_-]{1,64}$", examples=["shop"])
    amount: str = Field(description="Decimal string, with at most the currency's decimals.", examples=["12.50"])
    currency: str = Field(description="ISO 4217", examples=["USD"])
    payment_method: str = Field(description="Token of the provider, never a card number.", examples=["pm_approve"])
    customer_id: str | None = Field(None, max_length=128)
    description: str | None = Field(None, max_length=500)
    metadata: dict[str, str] | None = Field(None, description="At most 20 strings.")
    lane: str | None = Field(None, description="Provider account; the gateway's default where absent.")
    expires_at: str | None = Field(None, description="RFC 3339; past it the payment fails unless it was sent.")


class Payment(BaseModel):
    """A payment as it stands."""

    payment_id: str
    status: str = Field(description="PENDING, PROCESSING, UNKNOWN, REVIEW, COMPLETED, FAILED or CANCELLED")
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
    reason: str | None
    provider_charge_id: str | None
    created_at: str
    updated_at: str
    version: int


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}


_CREATE_DOCS: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "Idempotency-Key", "in": "header", "required": True,
            "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
            "description": "Names this payment. The same key and body again: 409 with the existing payment.",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": NewPayment.model_json_schema()}},
    },
}  # fmt: skip


async def body(request: Request) -> bytes:
    """The request's body, read no further than a command may reach. Raises Problem 413, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(415, "unsupported-media-type", "send application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported-encoding", "send the body uncompressed")
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > MAX_BYTES:
            raise Problem(413, "too-large", f"the body may have at most {MAX_BYTES} bytes")
    return bytes(read)


def key(request: Request) -> str:
    """The idempotency key of a request. Raises Problem 400."""
    found = request.headers.getlist(KEY_HEADER)
    if not found:
        raise Problem(400, "missing-idempotency-key", "is required", field="Idempotency-Key")
    if len(found) > 1:
        raise Problem(400, "invalid-idempotency-key", "must be sent once", field="Idempotency-Key")
    try:
        return commands.check_key(found[0])
    except InvalidCommand as error:
        raise Problem(400, "invalid-idempotency-key", error.detail, field="Idempotency-Key") from error


def routes(acceptance: Acceptance, lanes: frozenset[str]) -> APIRouter:
    """The routes of payments."""
    router = APIRouter(tags=["payments"])

    async def create(request: Request) -> Response:
        idempotency_key = key(request)
        raw = await body(request)
        now_ms = time.time_ns() // 1_000_000
        try:
            fields = loads(raw)
            if not isinstance(fields, dict):
                raise Problem(400, "invalid-json", "the body must be a JSON object")
            command = commands.create(fields, idempotency_key=idempotency_key, lanes=lanes, accepted_at_ms=now_ms)
        except InvalidJson as error:
            raise Problem(400, "invalid-json", f"the body {error}") from error
        except InvalidCommand as error:
            raise Problem(422, error.code, error.detail, field=error.field) from error
        if command.expires_at_ms is not None and command.expires_at_ms <= now_ms:
            raise Problem(422, "invalid-field", "must be in the future", field="expires_at")
        try:
            taken = await acceptance.accept(command)
        except PublishError as error:
            raise Problem(
                503, "kafka-away", "not accepted: Kafka did not acknowledge; send the same key again", retry_after_s=1
            ) from error
        location = {"Location": f"/v1/payments/{command.payment_id}"}
        match taken.answer:
            case Answer.ACCEPTED:
                return Response(taken.document, 201, location, "application/json")
            case Answer.REPEATED:
                headers = {**location, "Idempotency-Replayed": "true"}
                return Response(taken.document, 409, headers, "application/json")
            case Answer.CONFLICT:
                raise Problem(
                    422, "idempotency-key-reused", "was used for another body; nothing was published",
                    field="Idempotency-Key",
                )  # fmt: skip
            case Answer.BUSY:
                raise Problem(
                    409, "request-in-progress", "the first request with this key is still being published",
                    retry_after_s=max(1, math.ceil(taken.wait_ms / 1000)),
                )  # fmt: skip

    @router.post(
        "/v1/payments", status_code=201, response_model=Payment, openapi_extra=_CREATE_DOCS,
        responses={
            400: _problem("Not JSON, or no usable Idempotency-Key."),
            409: {"model": Payment, "description": "The key and body were seen: the existing payment."},
            413: _problem("The body is over 64 KiB."), 415: _problem("Not application/json."),
            422: _problem("A field is wrong (named in errors), or the key was used for another body."),
            503: _problem("Kafka did not acknowledge: not accepted."),
        },
    )  # fmt: skip
    async def create_payment(request: Request) -> Response:
        """Accept a payment; 201 means every in-sync replica has it."""
        began = time.perf_counter()
        answer = "error"
        try:
            found = await create(request)
            answer = str(found.status_code)
            return found
        except Problem as problem:
            answer = str(problem.status)
            raise
        finally:
            CREATES.labels(answer).inc()
            TAKING.observe(time.perf_counter() - began)

    @router.get(
        "/v1/payments/{payment_id}", response_model=Payment,
        responses={404: _problem("No such payment."), 503: _problem("PostgreSQL is away.")},
    )  # fmt: skip
    async def read_payment(payment_id: str) -> Response:
        """One payment as it stands, from the moment it was accepted."""
        try:
            commands.check_payment_id(payment_id)
            found = await acceptance.find(payment_id)
        except InvalidCommand:
            found = None
        except Away as error:
            raise Problem(503, "store-away", "the state cannot be read now", retry_after_s=1) from error
        if found is None:
            raise Problem(404, "no-such-payment", "no payment has this id")
        return Response(orjson.dumps(found), media_type="application/json")

    return router
