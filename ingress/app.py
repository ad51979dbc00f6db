"""The ingress as an ASGI app: the one place where its parts meet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from aiokafka.errors import KafkaError
from fastapi import FastAPI
from prometheus_client import Counter

from ingress import health, payments, problem, registry
from ingress.acceptance import Acceptance
from ingress.idempotency import Keys
from ingress.problem import Problem
from ingress.queries import Payments
from ingress.settings import IngressSettings
from ops.kafka.clients import Publisher
from ops.telemetry import logger

SHED = Counter("kifiya_ingress_shed", "Requests refused because too many were in hand.")
_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]

Scope = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]


class Shedding:
    """ASGI middleware: beyond ``limit`` requests in hand new ones are answered 503 at once; adds safe headers."""

    def __init__(self, app: Any, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._in_hand = 0

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safe(message: Any) -> None:
            if message["type"] == "http.response.start" and not scope["path"].startswith("/docs"):
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        if self._in_hand >= self._limit and scope["path"].startswith("/v1/"):
            SHED.inc()
            await problem.response(
                Problem(503, "overloaded", "too many requests in hand; nothing was accepted", retry_after_s=1)
            )(scope, receive, send_safe)
            return
        self._in_hand += 1
        try:
            await self._app(scope, receive, send_safe)
        finally:
            self._in_hand -= 1


async def _connect(publisher: Publisher) -> None:
    """Keep trying until Kafka is there; until then creates are answered 503."""
    wait_s = 0.1
    while True:
        try:
            await publisher.start()
        except (KafkaError, OSError, TimeoutError) as error:
            logger().warning("Kafka is away", action="kafka-away", error=type(error).__name__)
            await asyncio.sleep(wait_s)
            wait_s = min(2.0, wait_s * 2)
        else:
            return


def create_app(settings: IngressSettings) -> FastAPI:
    """The app; it connects when it starts. Raises ValueError for lanes that cannot be read."""
    lanes = settings.lane_table()
    # A claim outlives the wait for Kafka's ack, so a key is never claimed twice for one publish.
    keys = Keys(settings.redis_url, lease_s=settings.publish_timeout_s + 0.5, remember_s=settings.remember_s)
    stored = Payments(settings.database_url, time.monotonic)
    publisher = Publisher(settings.kafka, linger_ms=2, request_timeout_ms=5000)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        connecting = asyncio.create_task(_connect(publisher))
        try:
            yield
        finally:
            connecting.cancel()
            with suppress(asyncio.CancelledError):
                await connecting
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await publisher.stop()
            await keys.close()
            await stored.close()

    app = FastAPI(
        title="Kifiya Payment Gateway",
        version="1",
        description="Takes payments in spikes; calls providers at their pace.",
        lifespan=lifespan,
        redoc_url=None,
    )
    acceptance = Acceptance(
        keys, stored, publisher.publish, default_lane=next(iter(lanes)), publish_timeout_s=settings.publish_timeout_s
    )
    readiness = health.Readiness(
        needed={"kafka": publisher.ping}, wanted={"redis": keys.ping, "postgres": stored.ping}
    )
    app.include_router(payments.routes(acceptance, frozenset(lanes)))
    app.include_router(health.routes(readiness))
    app.include_router(registry.routes())
    problem.install(app)
    app.add_middleware(Shedding, limit=settings.in_flight_max)
    return app
