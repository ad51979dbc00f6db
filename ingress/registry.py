"""The bundled schemas, read-only, in Schema Registry's HTTP shape: Kafka clients decode our topics with it."""

from __future__ import annotations

import json
from typing import Any

import avro.schema
import orjson
from fastapi import APIRouter, Request, Response

from ingress.requests import body
from schemas.registry import Entry, entries

_TYPE = "application/vnd.schemaregistry.v1+json"


def _answer(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type=_TYPE)


def _missing(code: int, message: str) -> Response:
    return _answer({"error_code": code, "message": message}, 404)


def _versions(subject: str) -> list[Entry]:
    return sorted((entry for entry in entries() if entry.subject == subject), key=lambda entry: entry.version)


def _entry(entry: Entry) -> dict[str, Any]:
    return {"subject": entry.subject, "id": entry.id, "version": entry.version, "schema": entry.text}


def routes() -> APIRouter:
    """The registry's routes."""
    router = APIRouter(prefix="/registry", tags=["schemas"])

    @router.get("/subjects")
    async def subjects() -> Response:
        """All subjects."""
        return _answer(sorted({entry.subject for entry in entries()}))

    @router.get("/subjects/{subject}/versions")
    async def versions(subject: str) -> Response:
        """The versions of a subject."""
        found = _versions(subject)
        return _answer([entry.version for entry in found]) if found else _missing(40401, "Subject not found.")

    @router.get("/subjects/{subject}/versions/{version}")
    async def version_of(subject: str, version: str) -> Response:
        """One version of a subject, or ``latest``."""
        found = _versions(subject)
        if not found:
            return _missing(40401, "Subject not found.")
        last = version in {"latest", "-1"}
        wanted = found[-1:] if last else [entry for entry in found if str(entry.version) == version]
        return _answer(_entry(wanted[0])) if wanted else _missing(40402, "Version not found.")

    @router.get("/schemas/ids/{schema_id}")
    async def by_id(schema_id: str) -> Response:
        """The schema with this id, as it stands in the records' fifth byte."""
        found = [entry for entry in entries() if str(entry.id) == schema_id]
        return _answer({"schema": found[0].text}) if found else _missing(40403, "Schema not found.")

    @router.get("/schemas/ids/{schema_id}/versions")
    async def where_used(schema_id: str) -> Response:
        """Subjects and versions of this id."""
        found = [entry for entry in entries() if str(entry.id) == schema_id]
        if not found:
            return _missing(40403, "Schema not found.")
        return _answer([{"subject": entry.subject, "version": entry.version} for entry in found])

    @router.get("/schemas/types")
    async def types() -> Response:
        """Avro only."""
        return _answer(["AVRO"])

    @router.get("/config")
    async def config() -> Response:
        """Schemas change backward compatibly; the tests hold that."""
        return _answer({"compatibilityLevel": "BACKWARD"})

    @router.post("/subjects/{subject}")
    async def look_up(subject: str, request: Request) -> Response:
        """The id of a schema that is registered; nothing is ever registered here."""
        raw = await body(request)
        try:
            asked = avro.schema.parse(json.loads(raw)["schema"])
        except Exception:  # noqa: BLE001 - whatever the parser makes of hostile text, it is not a schema
            return _answer({"error_code": 42201, "message": "Invalid schema."}, 422)
        found = _versions(subject)
        if not found:
            return _missing(40401, "Subject not found.")
        for entry in reversed(found):
            if avro.schema.parse(entry.text).fingerprint() == asked.fingerprint():
                return _answer(_entry(entry))
        return _missing(40403, "Schema not found.")

    return router
