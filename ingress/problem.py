"""Errors as RFC 9457 problem details: machine-readable code, the field at fault, never the value."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from ops.telemetry import logger

MEDIA_TYPE: Final = "application/problem+json"


class Problem(Exception):
    """An answer that is an error. ``field`` is a path in the body, or a header's name."""

    def __init__(
        self, status: int, code: str, detail: str, *, field: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after_s = retry_after_s


def document(problem: Problem) -> dict[str, Any]:
    """The problem's JSON body."""
    body: dict[str, Any] = {
        "type": f"urn:kifiya:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": f"{problem.field} {problem.detail}" if problem.field else problem.detail,
    }
    if problem.field:
        body["errors"] = [{"field": problem.field, "detail": problem.detail, "code": problem.code}]
    return body


def response(problem: Problem) -> Response:
    """The problem as an HTTP response."""
    headers = {} if problem.retry_after_s is None else {"Retry-After": str(problem.retry_after_s)}
    return Response(orjson.dumps(document(problem)), problem.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of this app as a problem; a defect of ours is a 500 that tells nothing."""

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - registered for this class only
        return response(error)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
        phrase = HTTPStatus(error.status_code).phrase
        found = response(Problem(error.status_code, phrase.lower().replace(" ", "-"), phrase))
        found.headers.update(error.headers or {})
        return found

    async def defect(request: Request, error: Exception) -> Response:
        logger().error("a request failed", action="internal-error", path=request.url.path, error=type(error).__name__)
        return response(Problem(500, "internal-error", "the gateway failed; the same key may be sent again"))

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, defect)
