"""The payments resource: create and read."""

from __future__ import annotations

import math
import time
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, Response
from prometheus_client import Counter, Histogram

from ingress import prefer, views
from ingress.acceptance import Acceptance, Answer, Taken
from ingress.edge import Shortcut
from ingress.finals import Finals
from ingress.gate import Gate
from ingress.models import CREATE, PAYMENT_200, PAYMENT_201, PAYMENT_409, Payment, problems
from ingress.presence import Away
from ingress.problem import DEFECT, Problem, response
from ingress.requests import KEY_HEADER, json_body, key, values
from ingress.tenants import Caller, Reach, caller, own_merchant
from ingress.ticks import Ticks
from ops.kafka.clients import PublishError, RecordRefused
from ops.telemetry import logger
from schemas import command as commands
from schemas.command import InvalidCommand
from schemas.records import PaymentCommand
from schemas.strict_json import InvalidJson, loads

ACCEPTED: Final = Counter("kifiya_ingress_accepted", "Payments accepted: acknowledged by Kafka, or in the outbox.")
CREATES: Final = Counter("kifiya_ingress_creates", "Creates by status code of the answer.", ["answer"])
TAKING: Final = Histogram(
    "kifiya_ingress_create_seconds", "From a create's body to its answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2),
)  # fmt: skip

CREATE_PATH: Final = "/v1/payments"

_KAFKA_AWAY: Final = Problem(
    503, "kafka-away", "not accepted: neither Kafka nor the outbox has it; send the same key again", retry_after_s=1
)
STORE_AWAY: Final = Problem(503, "store-away", "the payment cannot be looked up now", retry_after_s=1)
NOT_FOUND: Final = Problem(404, "no-such-payment", "no payment has this id")
MALFORMED: Final = Problem(404, "no-such-payment", "must be a UUID in its canonical form", field="payment_id")
_REUSED: Final = Problem(
    422, "idempotency-key-reused", "was used for another body; nothing was published", field=KEY_HEADER
)
_EXPIRED: Final = Problem(422, "invalid-field", "must be in the future", field="expires_at")


def _too_long(wait_s: int) -> Problem:
    detail = "the lane's queue is longer than its maximum wait; nothing was accepted"
    return Problem(503, "lane-queue-too-long", detail, retry_after_s=wait_s)


_NOT_TAKEN: Final = problems(
    "Not accepted: Kafka and the outbox are away, too many requests in hand, or the lane's wait is over its maximum.",
    _KAFKA_AWAY, _too_long(95),
)  # fmt: skip


def fields_of(raw: bytes) -> dict[str, Any]:
    """The fields of a JSON object. Raises Problem 400."""
    try:
        fields = loads(raw)
    except InvalidJson as error:
        raise Problem(400, "invalid-json", f"the body {error}") from error
    if not isinstance(fields, dict):
        raise Problem(400, "invalid-json", "the body must be a JSON object")
    return fields


def parse(fields: dict[str, Any], idempotency_key: str, who: Caller, reach: Reach, *, now_ms: int) -> PaymentCommand:
    """The command in a create's fields, of the caller's merchant. Raises Problem 422."""
    try:
        asked = commands.create(
            own_merchant(fields, who), idempotency_key=idempotency_key, lanes=reach.lanes, accepted_at_ms=now_ms
        )
    except InvalidCommand as error:
        raise Problem(422, error.code, error.detail, field=error.field) from error
    reach.check(who, asked.lane)
    return asked


@lru_cache(maxsize=64)
def _creates(code: str) -> Any:
    """Their count; to find it costs as much as to count."""
    return CREATES.labels(code)


class Replay(StrEnum):
    """How a repeat is answered: 409 and the payment as it stands, or 200 and the payment as it was first answered."""

    CONFLICT = "conflict"
    ORIGINAL = "original"


def answer(taken: Taken, payment_id: str, replay: Replay) -> Response:
    """How a create that was taken is answered. Raises Problem 409, 422."""
    location = {"Location": f"/v1/payments/{payment_id}"}
    match taken.answer:
        case Answer.ACCEPTED:
            return Response(taken.document, 201, location, "application/json")
        case Answer.REPEATED:
            location["Idempotency-Replayed"] = "true"
            if replay is Replay.ORIGINAL:
                return Response(views.original(taken.document), 200, location, "application/json")
            return Response(taken.document, 409, location, "application/json")
        case Answer.CONFLICT:
            raise _REUSED
        case Answer.EXPIRED:
            raise _EXPIRED
        case Answer.TOO_LONG:
            raise _too_long(math.ceil(taken.wait_ms / 1000))
        case Answer.BUSY:
            wait_s = max(1, math.ceil(taken.wait_ms / 1000))
            detail = "the first request with this key is still being published"
            raise Problem(409, "request-in-progress", detail, retry_after_s=wait_s)


async def take(acceptance: Acceptance, command: PaymentCommand, began: float) -> Taken:
    """Have a create accepted, counted and timed. Raises Problem 500, 503."""
    try:
        taken = await acceptance.accept(command, began)
    except RecordRefused as error:
        logger().error("Kafka refuses a command", action="command-refused", error=type(error.cause).__name__)
        raise DEFECT from error
    except PublishError as error:
        raise _KAFKA_AWAY from error
    finally:
        TAKING.observe(time.monotonic() - began)
    if taken.answer is Answer.ACCEPTED:
        ACCEPTED.inc()
    return taken


async def create(  # noqa: PLR0913 - all that a create meets
    request: Request, acceptance: Acceptance, reach: Reach, gate: Gate, replay: Replay, *, finals: Finals, ticks: Ticks
) -> Response:
    """Take one create. Raises Problem."""
    who = caller(request)
    idempotency_key = key(request)
    raw = await json_body(request)
    preferred = values(request, b"prefer")
    wait_s = prefer.wait_s(preferred) if preferred else 0
    if wait_s and not await finals.live():
        wait_s = 0
    began = time.monotonic()
    async with gate.enter():
        command = parse(fields_of(raw), idempotency_key, who, reach, now_ms=time.time_ns() // 1_000_000)
        if not wait_s or not finals.room:
            await ticks.turn()
            taken = await take(acceptance, command, began)
            return answer(taken, command.payment_id or "", replay)
    with finals.expect(command.payment_id or "") as waiter:  # from before the publish: the end may come at once
        async with gate.enter():
            await ticks.turn()
            taken = await take(acceptance, command, began)
        found = answer(taken, command.payment_id or "", replay)
        if taken.answer is not Answer.ACCEPTED:
            return found
        result = await waiter.result(wait_s, request.receive)
    applied = {"Location": found.headers["Location"], "Preference-Applied": f"wait={wait_s}"}
    return Response(views.ended(taken.document, result) if result else taken.document, 201, applied, "application/json")


def creating(
    acceptance: Acceptance, reach: Reach, gate: Gate, finals: Finals, replay: Replay = Replay.CONFLICT
) -> Shortcut:
    """The way of a create: from the edge straight here."""
    ticks = Ticks()

    async def serve(request: Request) -> Response:
        code = "none"  # the client left, or a defect: the edge counts those
        try:
            found = await create(request, acceptance, reach, gate, replay, finals=finals, ticks=ticks)
            code = str(found.status_code)
        except Problem as error:
            code = str(error.status)
            found = response(error)
        finally:
            _creates(code).inc()
        return found

    return Shortcut(CREATE_PATH, serve)


def routes(acceptance: Acceptance, gate: Gate, creating: Shortcut) -> APIRouter:
    """The routes of payments."""
    router = APIRouter(tags=["payments"])

    @router.post(
        creating.path, status_code=201, response_model=Payment, openapi_extra=CREATE,
        responses={
            201: PAYMENT_201,
            200: PAYMENT_200,
            400: problems(
                "Not JSON, or no usable Idempotency-Key.",
                Problem(400, "missing-idempotency-key", "is required", field=KEY_HEADER),
                Problem(400, "invalid-json", "the body must be a JSON object"),
            ),
            408: problems("The body came too slowly."),
            409: PAYMENT_409,
            413: problems("The body is over 64 KiB."),
            415: problems("Not application/json, or compressed."),
            422: problems(
                "A field is wrong, or the key was used for another body. Nothing was published.",
                Problem(422, "invalid-field", "must be greater than zero", field="amount"), _REUSED,
            ),
            500: problems("A defect of the gateway.", DEFECT),
            503: _NOT_TAKEN,
        },
    )  # fmt: skip
    async def create_payment(request: Request) -> Response:
        """Accept a payment; 201 means that it is durable: every in-sync replica has it, or the outbox has."""
        return await creating.serve(request)

    _reads(router, acceptance, gate)
    return router


def _reads(router: APIRouter, acceptance: Acceptance, gate: Gate) -> None:
    @router.get("/v1/payments/batch", include_in_schema=False)
    async def read_batch() -> None:
        """Batches are not kept: the address takes POST only, and is no payment's."""
        raise HTTPException(405)

    @router.get(
        "/v1/payments/{payment_id}", response_model=Payment,
        responses={
            404: problems("No such payment, or not an id.", NOT_FOUND, MALFORMED),
            500: problems("A defect of the gateway.", DEFECT),
            503: problems("What may know the payment is away.", STORE_AWAY),
        },
    )  # fmt: skip
    async def read_payment(request: Request, payment_id: str) -> Response:
        """One payment as it stands, from the moment it was accepted.

        While PostgreSQL is away: as it was accepted (version 0), where that is remembered.
        """
        who = caller(request, "payments:read")
        try:
            commands.check_payment_id(payment_id)
        except InvalidCommand as error:
            raise MALFORMED from error
        async with gate.enter():
            try:
                found = await acceptance.find(payment_id, who.merchant_id)
            except Away as error:
                raise STORE_AWAY from error
        if found is None:
            raise NOT_FOUND
        return Response(found, media_type="application/json")
