"""Whether a newer schema reads what an older one wrote, with the same meaning.

``avro.compatibility`` judges shapes only: it lets milliseconds become microseconds, and cents become mills.
"""

from __future__ import annotations

import json
from typing import Any

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException

Schema = Any
"""A schema as JSON has it: a name, a list of branches, or an object."""

_MEANING = ("logicalType", "precision", "scale")


def incompatibilities(reader: Schema, writer: Schema) -> list[str]:
    """Why ``reader`` must not follow ``writer`` under BACKWARD compatibility; empty where it may."""
    try:
        newer, older = (avro.schema.parse(json.dumps(schema)) for schema in (reader, writer))
    except AvroException as error:
        return [f"not a schema: {error}"]
    result = ReaderWriterCompatibilityChecker().get_compatibility(newer, older)  # type: ignore[no-untyped-call]
    found = [] if result.compatibility is SchemaCompatibilityType.compatible else sorted(result.messages)
    return [*found, *_defaults(reader), *_meanings(reader, writer, "")]


def _kind(schema: Schema) -> str:
    """The shape of a schema, without its meaning."""
    if isinstance(schema, list):
        return "union"
    kind = schema["type"] if isinstance(schema, dict) else schema
    return kind if isinstance(kind, str) else _kind(kind)


def _meaning(schema: Schema) -> tuple[Any, ...]:
    return tuple(schema.get(name) for name in _MEANING) if isinstance(schema, dict) else (None,) * len(_MEANING)


def _branches(schema: Schema) -> list[Schema]:
    return schema if isinstance(schema, list) else [schema]


def _meanings(reader: Schema, writer: Schema, path: str) -> list[str]:
    """Where the same bytes would mean something else: logical type, precision or scale differ."""
    found = []
    for old in _branches(writer):
        for new in _branches(reader):
            if _kind(old) != _kind(new):
                continue
            if _meaning(old) != _meaning(new):
                found.append(f"{path or '/'}: {_meaning(old)} became {_meaning(new)}")
            if _kind(old) == "record":
                fields = {name: field for field in old["fields"] for name in [field["name"]]}
                for field in new["fields"]:
                    names = [field["name"], *field.get("aliases", [])]
                    match = next((fields[name] for name in names if name in fields), None)
                    if match is not None:
                        found += _meanings(field["type"], match["type"], f"{path}/{field['name']}")
            elif _kind(old) == "map":
                found += _meanings(new["values"], old["values"], f"{path}/values")
            elif _kind(old) == "array":
                found += _meanings(new["items"], old["items"], f"{path}/items")
    return found


def _defaults(schema: Schema) -> list[str]:
    """Fields whose default is no value of the first branch of their type, as Avro wants it."""
    shapes = {"null": type(None), "string": str, "long": int, "int": int, "map": dict, "array": list, "bytes": str}
    return [
        f"/{field['name']}: the default is no {_kind(first)}"
        for field in (schema["fields"] if _kind(schema) == "record" else [])
        for first in _branches(field["type"])[:1]
        if "default" in field and type(field["default"]) is not shapes.get(_kind(first), type(field["default"]))
    ]
