"""``GET /v1/lanes``: how long each lane's queue is, how fast it moves, and what holds it."""

from __future__ import annotations

import time
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from ingress.models import problems
from ingress.problem import DEFECT, Problem
from ingress.queues import Queues, view
from ingress.tenants import caller
from ingress.waiting import UNKNOWN, Standing
from schemas.lanes import Lane

EXAMPLE: Final[dict[str, Any]] = {
    "lane": "simulator", "limit": 2, "window_ms": 1000, "max_wait_s": None, "backlog": 120, "due": 1,
    "rate_per_s": 1.95, "measured_s": 60.0, "breaker": "closed", "workers": 1, "in_hand": 8,
    "oldest_waiting_s": 61.2, "drained": {"eta": "2026-01-31T12:01:02.000Z", "eta_s": 61.6, "reason": None},
}  # fmt: skip
_NO_LANE: Final = Problem(404, "no-such-lane", "no lane has this name")
_DRAINED: Final[dict[str, Any]] = {
    "type": "object",
    "description": "When all that waits now is served; null with a reason where nobody can tell.",
    "required": ["eta", "eta_s", "reason"],
    "properties": {
        "eta": {"type": ["string", "null"], "format": "date-time"},
        "eta_s": {"type": ["number", "null"]},
        "reason": {"type": ["string", "null"]},
    },
}
_LANE: Final[dict[str, Any]] = {
    "type": "object",
    "required": list(EXAMPLE),
    "properties": {
        "lane": {"type": "string"},
        "limit": {"type": "integer", "description": "Calls that the provider allows in a window."},
        "window_ms": {"type": "integer"},
        "max_wait_s": {"type": ["integer", "null"], "description": "A lane whose wait is longer takes no more: 503."},
        "backlog": {"type": ["integer", "null"], "description": "What waits, due retries included."},
        "due": {"type": ["integer", "null"], "description": "Due retries; they have three turns of four."},
        "rate_per_s": {"type": "number", "description": "Measured while there is work; else the limit."},
        "measured_s": {"type": "number", "description": "For how long it was measured, at most 60."},
        "breaker": {"type": "string", "enum": ["closed", "open", "unknown"]},
        "workers": {"type": "integer", "description": "Dispatch processes that were heard of just now."},
        "in_hand": {"type": "integer", "description": "Payments that they work on or wait with."},
        "oldest_waiting_s": {"type": ["number", "null"]},
        "drained": _DRAINED,
    },
}
_LANES: Final[dict[str, Any]] = {
    "type": "object", "required": ["lanes"], "properties": {"lanes": {"type": "array", "items": _LANE}}
}  # fmt: skip
_COMMON: Final[dict[int | str, dict[str, Any]]] = {
    500: problems("A defect of the gateway.", DEFECT),
    503: problems("Too many requests are in hand."),
}


def _ok(description: str, schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}


LANES_200: Final = _ok("Every lane, the default one first.", _LANES, {"lanes": [EXAMPLE]})
LANE_200: Final = _ok("The lane.", _LANE, EXAMPLE)


def lane_view(lane: Lane, queues: Queues, *, now: float, wall_ms: int) -> dict[str, Any]:
    """One lane as it is told."""
    queue = queues.waiting[lane.name]
    workers = queues.lookout.workers.get(lane.name) if queues.lookout else None
    sample = queue.known(now)
    backlog = queue.backlog(now)
    drain_s = queue.drain_s(now)
    reason = UNKNOWN if sample is None else sample.paused
    drained = view(Standing(None, None if drain_s is None else round(drain_s, 1), reason))
    del drained["position"]
    oldest = [at_ms for line in (sample.lines if sample else ()) for at_ms in line.oldest_ms if at_ms is not None]
    return {
        "lane": lane.name,
        "limit": lane.limit,
        "window_ms": lane.window_ms,
        "max_wait_s": lane.max_wait_s,
        "backlog": None if backlog is None else round(backlog),
        "due": sample.due.backlog if sample else None,
        "rate_per_s": round(queue.pace.rate, 3),
        "measured_s": round(queue.pace.measured_s, 1),
        "breaker": workers.breaker if workers else "unknown",
        "workers": len(workers.pulses) if workers else 0,
        "in_hand": sum(said.in_hand for said in workers.pulses) if workers else 0,
        "oldest_waiting_s": max(0.0, (wall_ms - min(oldest)) / 1000) if oldest else None,
        "drained": drained,
    }


def routes(queues: Queues) -> APIRouter:
    """The routes of lanes."""
    router = APIRouter(tags=["lanes"])

    def answer(*lanes: Lane) -> list[dict[str, Any]]:
        now, wall_ms = time.monotonic(), time.time_ns() // 1_000_000
        return [lane_view(lane, queues, now=now, wall_ms=wall_ms) for lane in lanes]

    @router.get(
        "/v1/lanes",
        responses={
            **_COMMON,
            200: LANES_200,
        },
    )
    async def read_lanes(request: Request) -> Response:
        """How much waits on each lane, how fast it is served, and until when."""
        caller(request, "payments:read")
        return Response(orjson.dumps({"lanes": answer(*queues.lanes.values())}), media_type="application/json")

    @router.get(
        "/v1/lanes/{lane}",
        responses={
            **_COMMON,
            200: LANE_200,
            404: problems("No lane has this name.", _NO_LANE),
        },
    )
    async def read_lane(request: Request, lane: str) -> Response:
        """How much waits on one lane, how fast it is served, and until when."""
        caller(request, "payments:read")
        if lane not in queues.lanes:
            raise _NO_LANE
        return Response(orjson.dumps(answer(queues.lanes[lane])[0]), media_type="application/json")

    return router
