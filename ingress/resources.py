"""What a merchant asks of payments that are there: lists, the audit trail, and cancelling."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol

import orjson
from fastapi import APIRouter, Request, Response

from ingress import cancel, filters, shapes, views
from ingress.acceptance import Acceptance
from ingress.cancel import FINAL_ALREADY, IN_PROCESSING, IN_REVIEW
from ingress.filters import Filters
from ingress.gate import Gate
from ingress.listing import Page
from ingress.models import Payment, problems
from ingress.payments import MALFORMED, NOT_FOUND, STORE_AWAY
from ingress.presence import Away
from ingress.problem import DEFECT, Problem
from ingress.requests import body
from ingress.tenants import caller
from ops.kafka.clients import PublishError
from schemas import command as commands
from schemas.command import InvalidCommand
from schemas.records import State

_KAFKA_AWAY: Final = Problem(503, "kafka-away", "not cancelled: Kafka did not acknowledge; ask again", retry_after_s=1)
_BODY: Final = Problem(400, "invalid-json", "the body must be empty, or {}")
_BODY_MAX: Final = 1024
_EXAMPLE: Final = Problem(400, "invalid-parameter", "must be a whole number from 1 to 100", field="limit")

_COMMON: Final[dict[int | str, dict[str, Any]]] = {
    500: problems("A defect of the gateway.", DEFECT),
    503: problems("What may know the payment is away.", STORE_AWAY),
}
_ABSENT: Final[dict[int | str, dict[str, Any]]] = {
    404: problems("No such payment, or not an id.", NOT_FOUND, MALFORMED)
}


class Lists(Protocol):
    """What lists read; every method raises Away."""

    def page(self, found: Filters, merchant_id: str) -> Awaitable[Page]:
        """One page of a merchant's payments."""

    def events(self, payment_id: str, merchant_id: str, *, after: int, limit: int) -> Awaitable[Sequence[Any]]:
        """A payment's events of versions over ``after``, in order, at most so many."""


class Resources:
    """The answers; the routes only describe them."""

    def __init__(self, acceptance: Acceptance, lists: Lists, gate: Gate) -> None:
        self._acceptance = acceptance
        self._lists = lists
        self._gate = gate

    async def list(self, request: Request) -> Response:
        """A page of payments. Raises Problem."""
        merchant_id = caller(request, "payments:read").merchant_id
        found = filters.parse(request.query_params.multi_items(), merchant_id)
        async with self._gate.enter():
            try:
                page = await self._lists.page(found, merchant_id)
            except Away as error:
                raise STORE_AWAY from error
        following = filters.cursor(found, merchant_id, page.last) if page.last else None
        return _json({"payments": [self._acceptance.told(row) for row in page.rows], "next_cursor": following})

    async def events(self, request: Request, payment_id: str) -> Response:
        """A payment's events. Raises Problem."""
        merchant_id = caller(request, "payments:read").merchant_id
        after, limit = filters.parse_events(request.query_params.multi_items())
        async with self._gate.enter():
            payment = await self._find(payment_id, merchant_id)
            try:
                rows = await self._lists.events(payment_id, merchant_id, after=after, limit=limit + 1)
            except Away as error:
                raise STORE_AWAY from error
        events = [views.event(row) for row in rows[:limit]]
        known = {name: payment[name] for name in ("payment_id", "status", "version")}
        return _json({**known, "events": events, "next_after": events[-1]["version"] if len(rows) > limit else None})

    async def cancel(self, request: Request, payment_id: str) -> Response:
        """Ask the stream to cancel. Raises Problem."""
        merchant_id = caller(request).merchant_id
        if (await body(request, most=_BODY_MAX)).strip() not in {b"", b"{}"}:
            raise _BODY
        began = time.monotonic()
        async with self._gate.enter():
            payment = await self._find(payment_id, merchant_id)
            status = 200
            if cancel.decide(State(payment["status"])):
                command = cancel.command(payment_id, merchant_id, time.time_ns() // 1_000_000)
                try:
                    await self._acceptance.publish(command, began)
                except PublishError as error:
                    raise _KAFKA_AWAY from error
                status = 202
        return _json(payment, status, {"Location": f"/v1/payments/{payment_id}"})

    async def _find(self, payment_id: str, merchant_id: str) -> dict[str, Any]:
        try:
            commands.check_payment_id(payment_id)
        except InvalidCommand as error:
            raise MALFORMED from error
        try:
            document = await self._acceptance.find(payment_id, merchant_id)
        except Away as error:
            raise STORE_AWAY from error
        if document is None:  # another's is as none at all
            raise NOT_FOUND
        found: dict[str, Any] = orjson.loads(document)
        return found


def _json(document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, "application/json")


def routes(resources: Resources) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["payments"])

    @router.get(
        "/v1/payments", response_model=shapes.PaymentList, openapi_extra=shapes.LIST,
        responses={**_COMMON, 400: problems("A parameter is wrong.", _EXAMPLE)},
    )  # fmt: skip
    async def list_payments(request: Request) -> Response:
        """Payments from the newest to the oldest, as far as PostgreSQL has them (a moment after they are accepted).

        Pages are stable: a cursor names a payment, not a number, and what comes meanwhile moves none from one page to
        another. A page may be short, or empty, and yet not the last: only a next_cursor of null is the end.
        """
        return await resources.list(request)

    @router.get(
        "/v1/payments/{payment_id}/events", summary="Events of one payment",
        response_model=shapes.Events, openapi_extra=shapes.EVENTS,
        responses={**_COMMON, **_ABSENT, 400: problems("A parameter is wrong.", _EXAMPLE)},
    )  # fmt: skip
    async def read_events(request: Request, payment_id: str) -> Response:
        """The audit trail: every change, every provider call, and the place of each in Kafka; empty for a moment."""
        return await resources.events(request, payment_id)

    _cancels(router, resources)
    return router


def _cancels(router: APIRouter, resources: Resources) -> None:
    @router.post(
        "/v1/payments/{payment_id}/cancel", status_code=202, response_model=Payment,
        responses={
            **_COMMON, **_ABSENT,
            200: {"description": "It is cancelled already; nothing was published."},
            202: {"description": "The payment as it stands. CANCELLED follows, or an event that says why not."},
            400: problems("The body is not empty.", _BODY),
            408: problems("The body came too slowly."),
            409: problems("It is final, or may have been sent.", FINAL_ALREADY, IN_PROCESSING, IN_REVIEW),
            413: problems("The body is over 1 KiB."),
            503: problems("Kafka did not acknowledge, or what may know the payment is away.", _KAFKA_AWAY, STORE_AWAY),
        },
    )  # fmt: skip
    async def cancel_payment(request: Request, payment_id: str) -> Response:
        """Cancel a payment that was not sent yet. It may be asked for again and again."""
        return await resources.cancel(request, payment_id)
