"""Errors as RFC 9457 problem details: machine-readable code, the field at fault, never the value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

MEDIA_TYPE: Final = "application/problem+json"
_NAME: Final = re.compile(r"[A-Za-z_]{1,40}", re.ASCII)


class Problem(Exception):
    """An answer that is an error. ``field`` is a path in the body or a header's name; ``close`` ends the connection."""

    def __init__(  # noqa: PLR0913 - all that a problem may say
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        retry_after_s: int | None = None,
        close: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after_s = retry_after_s
        self.close = close
        self.headers = headers or {}


DEFECT: Final = Problem(500, "internal-error", "the gateway failed; send the same key again")


def named(name: str) -> str:
    """A parameter's name as an answer may repeat it: no digits, and so no card number."""
    return name if _NAME.fullmatch(name) else "(unnamed)"


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
    # A shared one would gather every raise's frames.
    problem.__traceback__ = problem.__context__ = problem.__cause__ = None
    headers = dict(problem.headers)
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(problem.retry_after_s)
    if problem.close:
        headers["Connection"] = "close"
    return Response(orjson.dumps(document(problem)), problem.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error that a route or the router raises as a problem."""

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - registered for this class only
        return response(error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
        phrase = HTTPStatus(error.status_code).phrase
        code, detail = phrase.lower().replace(" ", "-"), _DETAILS.get(error.status_code, phrase)
        found = response(Problem(error.status_code, code, detail))
        found.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            methods = methods_at(app.openapi()["paths"], request.scope["path"])
            found.headers["Allow"] = ", ".join(methods) or found.headers.get("Allow", "")
        return found

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, http)


def methods_at(paths: Mapping[str, Mapping[str, Any]], path: str) -> list[str]:
    """What an address takes, over all of these paths of OpenAPI (RFC 9110, 10.2.1); empty where none fits.

    The router knows only of the route that it met first; a path that is named goes before one with a parameter.
    """
    fitting = [name for name in paths if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(name)), path)]
    found = {method.upper() for name in ([path] if path in paths else fitting) for method in paths[name]}
    return sorted(found | {"HEAD"} if "GET" in found else found)


_DETAILS: Final = {
    404: "there is nothing at this address",
    405: "this address does not take this method",
}
