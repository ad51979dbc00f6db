"""``python -m ingress``: the HTTP role, one process."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from ingress.app import create_app
from ingress.security_headers import hsts
from ingress.settings import IngressSettings
from ingress.wire import IDLE_S, BoundedProtocol
from ops.telemetry import configure_logging, logger

_DRAIN_S: Final = 4
_BACKLOG: Final = 2048


class Server(uvicorn.Server):
    """uvicorn's server; says in one JSON line where it listens. ``stopping`` is called before it drains."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, then say so."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # or each full collection walks through all that was imported: 60 ms in which nobody is served
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger().info("listening", action="listening", host=host, port=port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, which end by themselves never; then what is in hand is waited for."""
        self._stopping()
        await super().shutdown(sockets)


def _stop(_: int, __: FrameType | None) -> None:
    """Before and after uvicorn's own handling: a signal that asks to stop is no failure."""
    sys.exit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def config(app: FastAPI, hsts_max_age_s: int = 0) -> uvicorn.Config:
    """How uvicorn serves the app."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=_DRAIN_S,
        server_header=False,
        proxy_headers=False,
        headers=hsts(hsts_max_age_s),
        ws="none",
    )


def main(signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> None:
    """Read the settings, serve until a signal, finish what is in hand, exit 0."""
    for number in signals:
        signal.signal(number, _stop)
    try:
        settings = IngressSettings()
        app = create_app(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise SystemExit(f"ingress: {'.'.join(map(str, first['loc'])).upper()}: {first['msg']}") from error
    except ValueError as error:
        raise SystemExit(f"ingress: {error}") from error
    app.openapi()  # now, rather than in the midst of others' requests
    configure_logging("ingress", settings.log_level)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # strangers' broken requests are no news
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # kafka-away says it once, aiokafka ten times a second
    try:
        listener = _listen(settings.ingress_host, settings.ingress_port)
    except OSError as error:
        where = f"{settings.ingress_host}:{settings.ingress_port}"
        raise SystemExit(f"ingress: INGRESS_HOST, INGRESS_PORT: cannot listen on {where}: {error.strerror}") from error
    Server(config(app, settings.hsts_max_age_s), app.state.stopping).run(sockets=[listener])


if __name__ == "__main__":
    main()
