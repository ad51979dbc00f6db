"""``GET /v1/events``: a merchant's events from a cursor on, as JSON pages or as a stream that follows."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from ingress import views
from ingress.catchup import Gone
from ingress.cursor import LONGEST, InvalidCursor
from ingress.event_shapes import EVENTS_200, EVENTS_PARAMETERS
from ingress.feed import BEGINNING, Bounds, Feed
from ingress.models import problems
from ingress.presence import Away
from ingress.problem import DEFECT, Problem, named
from ingress.recent import Item
from ingress.stream import EventStream, Opening
from ingress.tenants import caller
from schemas import codec, money, topics
from schemas.records import PaymentEvent

LIMIT: Final = 100
LIMIT_MAX: Final = 500
SCAN_S: Final = 1.0
"""How long one page may be looked for; then it goes out with what was found, and says that there is more."""
STREAM: Final = "text/event-stream"
_SCOPE: Final = "payments:read"
_ID: Final = "Last-Event-ID"

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SAME: Final = (
    "version", "attempt", "call", "outcome", "reason", "detail", "provider_charge_id", "replay_id", "lane",
    "sent_at_us",
)  # fmt: skip
_GONE: Final = Problem(410, "cursor-gone", "the topic does not hold this point any more: begin with after=beginning")
_KAFKA_AWAY: Final = Problem(503, "kafka-away", "the events cannot be read now", retry_after_s=1)
_STREAMS: Final = Problem(
    429, "too-many-streams", "at most 50 streams of one merchant; close one first", retry_after_s=5
)
_STOPPING: Final = Problem(503, "stopping", "the gateway stops; connect again", retry_after_s=1, close=True)
_LIMIT: Final = Problem(400, "invalid-parameter", f"must be a whole number from 1 to {LIMIT_MAX}", field="limit")

Again = Callable[[Request], Awaitable[None]]
"""Asks once more who a request is from. Raises Problem where its key is no longer one."""


def view(item: Item) -> dict[str, Any]:
    """An event as its merchant sees it."""
    event = codec.decode(item.value, PaymentEvent)
    row = {
        **{name: getattr(event, name) for name in _SAME},
        "type": event.type.value,
        "state": event.state.value,
        "at": _EPOCH + dt.timedelta(milliseconds=event.at_ms),
        "topic": topics.EVENTS,
        "partition": item.partition,
        "offset": item.offset,
        "traceparent": item.traceparent,
    }
    return {
        "cursor": item.cursor,
        **{name: getattr(event, name) for name in ("payment_id", "merchant_id", "idempotency_key", "currency")},
        "amount": money.to_decimal(event.amount_minor, event.currency),
        **views.event(row),
    }


def frames(items: list[Item]) -> bytes:
    """Events as Server-Sent Events; ``id`` is what to send back as Last-Event-ID."""
    found = []
    for item in items:
        seen = view(item)
        found.append(
            b"id: %s\nevent: %s\ndata: %s\n\n" % (item.cursor.encode(), seen["type"].encode(), orjson.dumps(seen))
        )
    return b"".join(found)


def asked(request: Request) -> tuple[str, int]:
    """Where to begin and how many at most. Raises Problem 400. Last-Event-ID goes before ``after``."""
    query = request.query_params
    for name in query:
        if name not in {"after", "limit"}:
            raise Problem(
                400,
                "invalid-parameter",
                "is not a parameter of this list",
                field=named(name),
            )
        if len(query.getlist(name)) > 1:
            raise Problem(400, "invalid-parameter", "must be sent once", field=name)
    number = query.get("limit", str(LIMIT))
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and 1 <= int(number) <= LIMIT_MAX):  # noqa: PLR2004
        raise _LIMIT
    last = request.headers.getlist(_ID)
    after = last[-1] if last and last[-1] else query.get("after", BEGINNING)
    if len(after) > LONGEST:
        raise _no_cursor(request)
    return after, int(number)


def _no_cursor(request: Request) -> Problem:
    field = _ID if request.headers.get(_ID) else "after"
    return Problem(400, "invalid-cursor", "is no cursor of this gateway, nor beginning, nor latest", field=field)


@dataclass(frozen=True, slots=True)
class Live:
    """The answers; the route only describes them."""

    feed: Feed
    bounds: Bounds
    again: Again
    heartbeat_s: float

    async def page(self, request: Request) -> Response:
        """One page as JSON. Raises Problem 400, 401, 403, 410, 503."""
        merchant_id = caller(request, _SCOPE).merchant_id
        after, limit = asked(request)
        until = time.monotonic() + SCAN_S
        items: list[Item] = []
        done = False
        try:
            await self.feed.check()
            place = await self.feed.locate(merchant_id, after)
            while not done and len(items) < limit and time.monotonic() < until:
                more, done = await self.feed.more(place, limit - len(items))
                items += more
        except InvalidCursor as error:
            raise _no_cursor(request) from error
        except Gone as error:
            raise _GONE from error
        except Away as error:
            raise _KAFKA_AWAY from error
        found = {"events": [view(item) for item in items], "next": place.cursor, "more": not done}
        return Response(orjson.dumps(found), media_type="application/json")

    async def stream(self, request: Request) -> Response:
        """A stream. Raises Problem 400, 401, 403, 410, 429, 503: before it begins."""
        merchant_id = caller(request, _SCOPE).merchant_id
        after, _ = asked(request)
        self.bounds.check(merchant_id)
        if self.feed.stopping:
            raise _STOPPING
        place = None
        with suppress(Away):  # then it begins with heartbeats, and goes on when Kafka is there
            try:
                place = await self.feed.locate(merchant_id, after)
            except InvalidCursor as error:
                raise _no_cursor(request) from error
            except Gone as error:
                raise _GONE from error

        async def allowed() -> None:
            await self.again(request)
            caller(request, _SCOPE)

        opening = Opening(merchant_id, after, place, allowed)
        return EventStream(self.feed, self.bounds, opening, frames, heartbeat_s=self.heartbeat_s)


def routes(live: Live) -> APIRouter:
    """The route of events."""
    router = APIRouter(tags=["events"])

    @router.get(
        "/v1/events", summary="Events of all payments", openapi_extra={"parameters": EVENTS_PARAMETERS},
        responses={
            200: EVENTS_200,
            400: problems("A parameter, or the cursor, is none.", _LIMIT),
            410: problems("The topic no longer holds the cursor's point.", _GONE),
            429: problems("Too many streams of this merchant, or its rate limit is reached.", _STREAMS),
            500: problems("A defect of the gateway.", DEFECT),
            503: problems("Kafka is away (JSON only), or no stream is free.", _KAFKA_AWAY, _STOPPING),
        },
    )  # fmt: skip
    async def read_events(request: Request) -> Response:
        """Every change of the caller's payments, from any point the topic still holds; in order within each payment.

        A record that a crash had published twice comes twice, with the same payment_id and version.
        """
        if STREAM in request.headers.get("accept", ""):
            return await live.stream(request)
        return await live.page(request)

    return router
