"""Many creates in one request: newline-delimited JSON in, one answer a line out, in order; no line hinders another."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from ingress import problem
from ingress.acceptance import Acceptance
from ingress.gate import Gate
from ingress.models import problems
from ingress.payments import CREATES, Replay, answer, fields_of, parse, take
from ingress.problem import DEFECT, Problem, response
from ingress.rates import Rates
from ingress.requests import json_body
from ingress.shapes import BATCH, BATCH_200
from ingress.tenants import Caller, Reach, caller
from ops.telemetry import logger
from schemas import command as commands
from schemas.command import InvalidCommand
from schemas.records import PaymentCommand

MEDIA_TYPE: Final = "application/x-ndjson"
LINES_MAX: Final = 1000
BYTES_MAX: Final = 3 * 1024 * 1024
"""Below what a connection may send at all (``wire.MESSAGE_BYTES``), so that more is answered and not cut off."""
AT_ONCE: Final = 16
"""Lines of one batch that work at a time."""
BATCHES_MAX: Final = 8
"""Batches in hand; their lines together take half of the gate's places at most, and their bodies 24 MiB."""
BATCH_S: Final = 20.0
"""How long a batch may take; lines that have not begun by then are answered 503."""

_BUSY: Final = Problem(503, "too-many-batches", "too many batches are in hand; nothing was accepted", retry_after_s=1)
_LATE: Final = Problem(503, "batch-too-slow", "not begun in time; send this line again", retry_after_s=1)
_EMPTY: Final = Problem(400, "empty-batch", "the body has no line")
_MANY: Final = Problem(413, "too-many-lines", f"the body may have at most {LINES_MAX} lines; nothing was accepted")
_NO_NAME: Final = Problem(400, "missing-idempotency-key", "is required", field="idempotency_key")


def split(raw: bytes) -> list[bytes]:
    """The lines; the last one may end in a newline. Raises Problem 400, 413."""
    lines = raw.removesuffix(b"\n").split(b"\n", LINES_MAX)
    if len(lines) > LINES_MAX:
        raise _MANY
    if not raw.strip():
        raise _EMPTY
    return lines


class Batch:
    """Takes batches. Each line enters the gate on its own, so a batch stands in line like as many requests."""

    def __init__(self, acceptance: Acceptance, reach: Reach, gate: Gate, replay: Replay, rates: Rates) -> None:
        self._acceptance = acceptance
        self._reach = reach
        self._gate = gate
        self._replay = replay
        self._rates = rates
        self._free = BATCHES_MAX

    async def create(self, request: Request, who: Caller) -> Response:
        """Answer a batch of this caller's. Raises Problem where nothing of it was taken."""
        if not self._free:  # before the body: it is what costs
            raise _BUSY
        self._free -= 1
        try:
            raw = await json_body(request, kind=MEDIA_TYPE, most=BYTES_MAX)
            answers = await self._lines(split(raw), who, time.monotonic() + BATCH_S)
        finally:
            self._free += 1
        return Response(b"".join(answers), 200, media_type=MEDIA_TYPE)

    async def _lines(self, lines: list[bytes], who: Caller, until: float) -> list[bytes]:
        """The answers, in order. Lines of one key follow each other, as if they had been sent one by one."""
        answers: list[bytes] = []
        window: deque[asyncio.Task[bytes]] = deque()
        last_of: dict[str, asyncio.Task[bytes]] = {}
        try:
            for number, raw in enumerate(lines, 1):
                if len(window) == AT_ONCE:
                    answers.append(await window.popleft())
                command = self._command(number, raw, who) if time.monotonic() < until else _LATE
                payment_id = command.payment_id or "" if isinstance(command, PaymentCommand) else ""
                task = asyncio.create_task(self._one(number, command, last_of.get(payment_id)))
                window.append(task)
                if payment_id:
                    last_of[payment_id] = task
            while window:
                answers.append(await window.popleft())
        finally:
            for task in window:
                task.cancel()
        return answers

    def _command(self, number: int, raw: bytes, who: Caller) -> PaymentCommand | Problem:
        try:
            if number > 1:  # the first one is what the request counts for
                self._rates.take(who)
            if len(raw) > commands.MAX_BYTES:
                raise Problem(413, "too-large", f"a line may have at most {commands.MAX_BYTES} bytes")  # noqa: TRY301
            fields = fields_of(raw)
            if "idempotency_key" not in fields:
                raise _NO_NAME
            key = line_key(fields.pop("idempotency_key"))
            return parse(fields, key, who, self._reach, now_ms=time.time_ns() // 1_000_000)
        except Problem as error:
            return error

    async def _one(self, number: int, command: PaymentCommand | Problem, before: asyncio.Task[bytes] | None) -> bytes:
        try:
            found = response(command) if isinstance(command, Problem) else await self._answer(command, before)
        except Problem as error:
            found = response(error)
        except Exception as error:  # noqa: BLE001 - a defect that one line meets hinders no other
            logger().error("a line failed", action="internal-error", error=type(error).__name__)
            found = response(DEFECT)
        CREATES.labels(str(found.status_code)).inc()
        return line(number, found)

    async def _answer(self, command: PaymentCommand, before: asyncio.Task[bytes] | None) -> Response:
        if before is not None:
            await asyncio.wait({before})
        async with self._gate.enter():
            taken = await take(self._acceptance, command, time.monotonic())
            return answer(taken, command.payment_id or "", self._replay)


def line_key(value: Any) -> str:
    """A line's idempotency key. Raises Problem 400."""
    try:
        return commands.check_key(value)
    except InvalidCommand as error:
        raise Problem(400, "invalid-idempotency-key", error.detail, field="idempotency_key") from error


def line(number: int, found: Response) -> bytes:
    """One answer: the line's number from 1, the status code that a request of its own had been given, and its body."""
    is_problem = found.media_type == problem.MEDIA_TYPE
    said: dict[str, Any] = {"line": number, "status": found.status_code}
    if "idempotency-replayed" in found.headers:
        said["replayed"] = True
    if "retry-after" in found.headers:
        said["retry_after_s"] = int(found.headers["retry-after"])
    said["problem" if is_problem else "payment"] = orjson.Fragment(bytes(found.body))
    return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)


def routes(batch: Batch) -> APIRouter:
    """The route of batches."""
    router = APIRouter(tags=["payments"])

    @router.post(
        "/v1/payments/batch", openapi_extra=BATCH,
        responses={
            200: BATCH_200,
            400: problems("The body has no line.", _EMPTY),
            408: problems("The body came too slowly."),
            413: problems("The body is over 3 MiB, or has over 1,000 lines.", _MANY),
            415: problems("Not application/x-ndjson, or compressed."),
            500: problems("A defect of the gateway.", DEFECT),
            503: problems("Too many batches, or requests, are in hand: nothing was accepted.", _BUSY),
        },
    )  # fmt: skip
    async def create_payments(request: Request) -> Response:
        """Accept up to 1,000 payments, each or not: one answer a line, in the order of the lines.

        A line is the body of a create with its idempotency_key. Send a batch again, or only the lines of it that were
        answered 503 or not at all: a key names its payment for ever.
        """
        return await batch.create(request, caller(request))

    return router
