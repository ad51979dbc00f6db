"""``python -m ops.bench.nothing --port N``: a FastAPI endpoint that does nothing, served as the ingress is."""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI


def create_app() -> FastAPI:
    """The app: one POST that answers 201 with a constant, one GET to ask whether it is there."""
    app = FastAPI(openapi_url=None)

    @app.post("/v1/payments", status_code=201)
    async def nothing() -> dict[str, str]:
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
