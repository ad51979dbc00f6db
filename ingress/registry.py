"""The bundled schemas, read-only, in Schema Registry's HTTP shape: Kafka clients decode our topics with it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

import avro.schema
import orjson
from fastapi import APIRouter, Request, Response

from ingress.models import problems
from ingress.requests import body
from schemas.registry import Entry, entries

_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_LARGEST: Final = 16 * 1024
"""Of a schema that is looked up; the parser takes a millisecond for a kilobyte, and ours have six."""


class _Answer(Response):
    """What the registry answers with."""

    media_type = _TYPE


def _shown(description: str, example: Any) -> dict[str, Any]:
    schema = {"type": "array"} if isinstance(example, list) else {"type": "object", "required": sorted(example)}
    return {"description": description, "content": {_TYPE: {"schema": schema, "example": example}}}


def _error(description: str, code: int, message: str) -> dict[str, Any]:
    return _shown(description, {"error_code": code, "message": message})


_ABSENT: Final[dict[int | str, dict[str, Any]]] = {404: _error("Not registered.", 40401, "Subject not found.")}
_UNREADABLE: Final[dict[int | str, dict[str, Any]]] = {
    408: problems("The body came too slowly."),
    413: problems("The body is over 16 KiB."),
    422: _error("Not a schema.", 42201, "Invalid schema."),
}
_LOOK_UP: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            _TYPE: {
                "schema": {"type": "object", "properties": {"schema": {"type": "string"}}, "required": ["schema"]},
                "example": {"schema": '"string"'},
            }
        },
    },
}


_ENTRY: Final = {"subject": "payments.events-value", "id": 3, "version": 1, "schema": '{"type":"record"}'}


def _ok(example: Any) -> dict[int | str, dict[str, Any]]:
    return {200: _shown("It is so.", example)}


def _answer(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type=_TYPE)


def _missing(code: int, message: str) -> Response:
    return _answer({"error_code": code, "message": message}, 404)


@cache
def _fingerprint(text: str) -> Any:
    """What a schema means, whatever its spaces and documentation; only of the bundled ones, so few are kept."""
    return avro.schema.parse(text).fingerprint()


def _versions(subject: str) -> list[Entry]:
    return sorted((entry for entry in entries() if entry.subject == subject), key=lambda entry: entry.version)


def _entry(entry: Entry) -> dict[str, Any]:
    return {"subject": entry.subject, "id": entry.id, "version": entry.version, "schema": entry.text}


def routes() -> APIRouter:
    """The registry's routes."""
    router = APIRouter(prefix="/registry", tags=["schemas"], default_response_class=_Answer)
    _subjects(router)
    _ids(router)

    @router.get("/config", summary="The rule for changes", responses=_ok({"compatibilityLevel": "BACKWARD"}))
    async def config() -> Response:
        """Schemas change backward compatibly; the tests hold that."""
        return _answer({"compatibilityLevel": "BACKWARD"})

    return router


def _subjects(router: APIRouter) -> None:
    @router.get(
        "/subjects", summary="All subjects", responses=_ok(["payments.commands-value", "payments.events-value"])
    )
    async def subjects() -> Response:
        """The names under which records' schemas are registered."""
        return _answer(sorted({entry.subject for entry in entries()}))

    @router.get("/subjects/{subject}/versions", summary="Versions of a subject", responses={**_ok([1]), **_ABSENT})
    async def versions(subject: str) -> Response:
        """The versions of a subject, the oldest first."""
        found = _versions(subject)
        return _answer([entry.version for entry in found]) if found else _missing(40401, "Subject not found.")

    @router.get(
        "/subjects/{subject}/versions/{version}", summary="One version of a subject",
        responses={**_ok(_ENTRY), **_ABSENT},
    )  # fmt: skip
    async def version_of(subject: str, version: str) -> Response:
        """One version of a subject, or ``latest``."""
        found = _versions(subject)
        if not found:
            return _missing(40401, "Subject not found.")
        last = version in {"latest", "-1"}
        wanted = found[-1:] if last else [entry for entry in found if str(entry.version) == version]
        return _answer(_entry(wanted[0])) if wanted else _missing(40402, "Version not found.")

    @router.post(
        "/subjects/{subject}", summary="Look a schema up", openapi_extra=_LOOK_UP,
        responses={**_ok(_ENTRY), **_ABSENT, **_UNREADABLE},
    )  # fmt: skip
    async def look_up(subject: str, request: Request) -> Response:
        """The id of a schema that is registered; nothing is ever registered here."""
        raw = await body(request, most=_LARGEST)
        try:
            asked = avro.schema.parse(json.loads(raw)["schema"]).fingerprint()
        except Exception:  # noqa: BLE001 - whatever the parser makes of hostile text, it is not a schema
            return _answer({"error_code": 42201, "message": "Invalid schema."}, 422)
        found = _versions(subject)
        if not found:
            return _missing(40401, "Subject not found.")
        for entry in reversed(found):
            if _fingerprint(entry.text) == asked:
                return _answer(_entry(entry))
        return _missing(40403, "Schema not found.")


def _ids(router: APIRouter) -> None:
    @router.get(
        "/schemas/ids/{schema_id}", summary="A schema by its id",
        responses={**_ok({"schema": _ENTRY["schema"]}), **_ABSENT},
    )  # fmt: skip
    async def by_id(schema_id: str) -> Response:
        """The schema with this id, as it stands in the records' fifth byte."""
        found = [entry for entry in entries() if str(entry.id) == schema_id]
        return _answer({"schema": found[0].text}) if found else _missing(40403, "Schema not found.")

    @router.get(
        "/schemas/ids/{schema_id}/versions", summary="Where a schema is used",
        responses={**_ok([{"subject": _ENTRY["subject"], "version": 1}]), **_ABSENT},
    )  # fmt: skip
    async def where_used(schema_id: str) -> Response:
        """The subjects and versions that have this id."""
        found = [entry for entry in entries() if str(entry.id) == schema_id]
        if not found:
            return _missing(40403, "Schema not found.")
        return _answer([{"subject": entry.subject, "version": entry.version} for entry in found])

    @router.get("/schemas/types", summary="Kinds of schemas", responses=_ok(["AVRO"]))
    async def types() -> Response:
        """The languages in which schemas are written: Avro only."""
        return _answer(["AVRO"])
