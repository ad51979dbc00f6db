"""``python -m ops.bench.nothing --port N``: FastAPI endpoints that do nothing, or only validate, served as ours are."""

from __future__ import annotations

import argparse
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header

from ingress.models import NewPayment


def create_app() -> FastAPI:
    """The app: two POSTs that answer 201 with a constant, one GET to ask whether it is there."""
    app = FastAPI(openapi_url=None)

    @app.post("/v1/payments", status_code=201)
    async def nothing() -> dict[str, str]:
        return {"state": "PENDING"}

    @app.post("/validated", status_code=201)
    async def validated(payment: NewPayment, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:  # noqa: ARG001 - validated is all they are
        return {"state": "PENDING"}

    @app.get("/readyz")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    return app


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="nothing")
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(create_app(), port=parser.parse_args().port, log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    main()
