"""Logs, metrics and health, the same for every role. A leaf: imports nothing of ours.

Logs are JSON lines on stderr with an allow-list of fields: what is not listed is dropped, no payload leaks by accident.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

ALLOWED: Final = frozenset(
    {
        "event", "level", "timestamp", "role", "pid", "action", "payment_id", "lane", "topic", "partition", "offset",
        "attempt", "version", "state", "outcome", "reason", "error", "count", "wait_s", "port", "host", "url", "name",
        "tier", "due_in_s", "rc", "signal", "path", "status", "request_id", "duration_ms", "hint", "merchant_id", "exc",
        "logger", "stack", "traceparent",
    }
)  # fmt: skip
MAX_FIELD: Final = 300
_QUIET = (
    "ops.kafka.faust_app", "ops.kafka.tables", "faust", "mode", "aiokafka", "kafka", "httpx", "httpx2", "httpcore2",
    "alembic", "aiohttp.access",
)  # fmt: skip


def _mask(_: Any, __: str, event: Any) -> Any:
    """Keep listed fields only, capped: control characters are escaped by the JSON encoder."""
    return {
        key: value[:MAX_FIELD] if isinstance(value, str) else value
        for key, value in event.items()
        if key in ALLOWED and (value is not None or key != "traceparent")
    }


def configure_logging(role: str, level: str = "info") -> None:
    """JSON lines on stderr for this process; third-party loggers only from WARNING (their INFO slows Faust down)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _mask,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(getattr(logging, level.upper()))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)


def logger() -> structlog.stdlib.BoundLogger:
    """The process' logger: ``logger().info("what happened", action="stable-name", payment_id=...)``."""
    found: structlog.stdlib.BoundLogger = structlog.get_logger()
    return found


@asynccontextmanager
async def admin_server(host: str, port: int, health: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Serve /metrics, /healthz and /readyz while the block runs; port 0 is off.

    ``health`` answers ``{"ready": bool, "missing": [...], ...}``; /readyz is 200 only when ``ready`` is true.
    """
    if port == 0:
        yield
        return

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        state = health()
        return web.json_response(state, status=200 if state.get("ready") else 503)

    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", alive), web.get("/readyz", ready)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    try:
        yield
    finally:
        await runner.cleanup()
