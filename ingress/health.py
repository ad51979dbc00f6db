"""Liveness, readiness and metrics of the ingress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], Awaitable[None]]


class Readiness:
    """Asks each dependency, at most once a second. Only what accepting needs makes the ingress unready.

    ``instead`` is what can stand in for a needed one: with it there, the ingress is ready, and only degraded.
    """

    def __init__(
        self,
        needed: Mapping[str, Check],
        wanted: Mapping[str, Check],
        *,
        instead: Mapping[str, Check] | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        self._needed = needed
        self._wanted = wanted
        self._instead = instead or {}
        self._timeout_s = timeout_s
        self._asked_at = float("-inf")
        self._last: dict[str, Any] = {"ready": False, "missing": ["start"], "degraded": []}
        self._asking = asyncio.Lock()

    async def state(self) -> dict[str, Any]:
        """``{"ready": bool, "missing": [...], "degraded": [...]}``."""
        async with self._asking:
            if time.monotonic() - self._asked_at > 1.0:
                absent, degraded, without = await asyncio.gather(
                    self._absent(self._needed), self._absent(self._wanted), self._absent(self._instead)
                )
                replaced = [name for name in absent if name in self._instead and name not in without]
                missing = [name for name in absent if name not in replaced]
                self._last = {"ready": not missing, "missing": missing, "degraded": replaced + degraded}
                self._asked_at = time.monotonic()
            return self._last

    async def _absent(self, checks: Mapping[str, Check]) -> list[str]:
        async def answers(check: Check) -> bool:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await check()
            except Exception:  # noqa: BLE001 - whatever it is, the dependency is not there
                return False
            return True

        found = await asyncio.gather(*(answers(check) for check in checks.values()))
        return [name for name, there in zip(checks, found, strict=True) if not there]


_METRICS: Final = "kifiya_ingress_accepted_total 42.0\n"


def _shown(description: str, example: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {name: {} for name in example}}
    return {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}


def routes(readiness: Readiness) -> APIRouter:
    """The routes that machines ask."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="Whether the process is alive", responses={200: _shown("It is.", {"status": "ok"})})
    async def alive() -> Response:
        """The process serves requests; nothing is said of what it stands on."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    @router.get(
        "/readyz", summary="Whether payments can be accepted",
        responses={
            200: _shown("They can.", {"ready": True, "missing": []}),
            503: _shown("Something is missing; the body says what.", {"ready": False, "missing": ["kafka"]}),
        },
    )  # fmt: skip
    async def ready() -> Response:
        """Whether payments can be accepted now, and what is missing."""
        state = await readiness.state()
        return Response(orjson.dumps(state), 200 if state["ready"] else 503, media_type="application/json")

    @router.get(
        "/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse,
        responses={
            200: {"description": "In the text format.", "content": {"text/plain": {"example": _METRICS}}}
        },
    )  # fmt: skip
    async def metrics() -> Response:
        """Counts, gauges and histograms of this process, in the Prometheus text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router
