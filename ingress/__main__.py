"""``python -m ingress``: the HTTP role, one process."""

from __future__ import annotations

import uvicorn
from pydantic import ValidationError

from ingress.app import create_app
from ingress.settings import IngressSettings
from ops.telemetry import configure_logging


def main() -> None:
    """Read the settings, serve until SIGTERM."""
    try:
        settings = IngressSettings()
        app = create_app(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise SystemExit(f"ingress: {'.'.join(map(str, first['loc'])).upper()}: {first['msg']}") from error
    except ValueError as error:
        raise SystemExit(f"ingress: {error}") from error
    configure_logging("ingress", settings.log_level)
    uvicorn.run(
        app,
        host=settings.ingress_host,
        port=settings.ingress_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        limit_concurrency=None,
        server_header=False,
    )


if __name__ == "__main__":
    main()
