"""OpenAPI made whole: what FastAPI leaves out, or does not know, of how this API answers."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from ingress.models import ID, KEY_ANSWERS, ProblemDetails, problems
from ingress.problem import DEFECT, MEDIA_TYPE, Problem

Document = dict[str, Any]

_BEARER: Final = {"type": "http", "scheme": "bearer", "bearerFormat": "kfy_<mode>_<key id>.<secret>"}
_REQUEST_ID: Final = {
    "description": "The request's X-Request-Id, or a new one: it stands in our log lines.", "schema": {"type": "string"}
}  # fmt: skip
_RETRY_AFTER: Final = {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
_PATHS: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "payment_id": ("The payment's id.", {"type": "string", "format": "uuid"}, ID),
    "lane": ("A lane's name.", {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$"}, "simulator"),
    "subject": ("A record's name in the registry.", {"type": "string"}, "payments.events-value"),
    "version": ("A version of the subject, or latest.", {"type": "string"}, "latest"),
    "schema_id": ("A schema's id, as records carry it.", {"type": "string", "pattern": "^[0-9]{1,9}$"}, "3"),
}
"""What stands in paths: description, schema, example."""
_TRACE: Final = {
    "name": "traceparent", "in": "header", "required": False,
    "description": "W3C trace context: goes along to Kafka, the provider and the payment's events.",
    "schema": {"type": "string"}, "example": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}  # fmt: skip


_PLAIN: Final = {
    "408": Problem(408, "body-too-slow", "the body did not come within 10 s"),
    "413": Problem(413, "too-large", "the body may have at most 65536 bytes"),
    "415": Problem(415, "unsupported-media-type", "must be application/json", field="Content-Type"),
    "503": Problem(503, "overloaded", "too many requests in hand; send it again", retry_after_s=1),
}


def install(app: FastAPI) -> None:
    """Have the app describe itself so."""
    plain = app.openapi

    def openapi() -> Document:
        made = app.openapi_schema is not None
        found = plain()
        if not made:
            complete(found)
        return found

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def complete(document: Document) -> None:
    """Complete a document that FastAPI has made."""
    _errors(document)
    _examples(document)
    document["components"]["securitySchemes"] = {"api_key": _BEARER}
    for path, ways in document["paths"].items():
        for method, way in ways.items():
            way["parameters"] = [_described(each) for each in way.get("parameters", [])]
            if path.startswith("/v1/"):
                way["security"] = [{"api_key": []}]
                way["responses"] = _answers(way["responses"])
                way["parameters"] += [_TRACE] if method == "post" else []
            _shown_anyway(way["responses"])
            for code, answer in way["responses"].items():
                _own_kind_only(answer)
                headers = answer.setdefault("headers", {})
                headers["X-Request-Id"] = _REQUEST_ID
                if code in {"429", "503"} or "request-in-progress" in str(answer.get("content")):
                    headers["Retry-After"] = _RETRY_AFTER


def _errors(document: Document) -> None:
    """The shape of our errors in place of FastAPI's own, which is never given."""
    schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = document["components"]["schemas"]
    parts.update(schema.pop("$defs", {}))
    parts["ProblemDetails"] = schema
    parts.pop("HTTPValidationError", None)
    parts.pop("ValidationError", None)
    for ways in document["paths"].values():
        for way in ways.values():
            if "HTTPValidationError" in str(way["responses"].get("422")):
                del way["responses"]["422"]


def _examples(document: Document) -> None:
    """Examples with the nulls that FastAPI drops out of them: what is required and may be null."""
    parts = document["components"]["schemas"]
    for schema in parts.values():
        for example in schema.get("examples", []):
            _fill(example, schema, parts)
    for ways in document["paths"].values():
        for way in ways.values():
            for answer in way["responses"].values():
                for content in answer.get("content", {}).values():
                    _fill(content.get("example"), content.get("schema", {}), parts)


def _fill(example: Any, schema: Document, parts: Document) -> None:
    schema = parts[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for branch in schema.get("anyOf", []):
        _fill(example, branch, parts)
    if isinstance(example, list):
        for each in example:
            _fill(each, schema.get("items", {}), parts)
    elif isinstance(example, dict):
        for name in schema.get("required", []):
            example.setdefault(name, None)
        for name, part in schema.get("properties", {}).items():
            _fill(example.get(name), part, parts)


def _described(parameter: Document) -> Document:
    if parameter["in"] != "path" or parameter["name"] not in _PATHS:
        return parameter
    description, schema, example = _PATHS[parameter["name"]]
    return {**parameter, "description": description, "schema": schema, "example": example}


def _answers(own: Document) -> Document:
    """All answers of a route under /v1: its own, with those that any request may get."""
    shared = {**KEY_ANSWERS, "500": problems("A defect of the gateway.", DEFECT)}
    merged = {**shared, **own}
    for code in shared.keys() & own.keys():
        merged[code] = {**shared[code], **own[code], "content": _content(shared[code], own[code])}
    made = next(answer["content"] for code, answer in own.items() if code < "300" and answer.get("content"))
    for code, answer in own.items():
        if code < "300" and not answer.get("content"):
            answer["content"] = made
    return dict(sorted(merged.items()))


def _own_kind_only(answer: Document) -> None:
    """Without the JSON that FastAPI takes for granted, where the route names what it answers with."""
    content = answer.get("content", {})
    if len(content) > 1 and not content.get("application/json", {"schema": True}).get("schema"):
        del content["application/json"]


def _shown_anyway(answers: Document) -> None:
    """An example of each problem for which a route names none of its own."""
    for code, plain in _PLAIN.items():
        content = answers.get(code, {}).get("content", {}).get(MEDIA_TYPE, {})
        if content and not content.get("examples"):
            answers[code] = problems(answers[code]["description"], plain)


def _content(shared: Document, own: Document) -> Document:
    """The examples of both: one status code may have several reasons."""
    found = {**shared["content"], **own.get("content", {})}
    for kind, content in shared["content"].items():
        examples = {**content.get("examples", {}), **own.get("content", {}).get(kind, {}).get("examples", {})}
        found[kind] = {**found[kind], "examples": examples}
    return found
