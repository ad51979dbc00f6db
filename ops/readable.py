"""A Kafka record as a person or a script can read it: Avro by its schema id, JSON, or the size of what is neither.

Pure, and never fails: anybody may have written to the topic.
"""

from __future__ import annotations

import json
import struct
from dataclasses import fields
from enum import Enum
from typing import Any, Final

from schemas import codec, records, registry, strict_json

CLASSES: Final[dict[str, type[Any]]] = {
    cls.__name__: cls
    for cls in (
        records.PaymentCommand,
        records.PaymentTask,
        records.PaymentEvent,
        records.PaymentResult,
        records.DeadLetter,
        records.LimiterBeat,
    )
}
SHOWN_BYTES: Final = 32
"""How much of bytes that say nothing is shown, in hexadecimal."""
LONGEST_KEY: Final = 120
_HEADER: Final = struct.Struct(">bI")


def value(data: bytes | None, *, changelog: bool = False) -> dict[str, Any]:
    """What a value is: ``{"record": name, ...its fields}``, ``{"json": ...}``, or its size and why it is neither.

    A changelog's value is the tables' own format: its size is shown.
    """
    if data is None:
        return {"tombstone": True}
    if changelog:
        return {"bytes": len(data)}
    if data[:1] == b"{":
        return _json(data)
    try:
        return avro(data)
    except codec.DecodeError as error:
        return {"undecodable": str(error), "bytes": len(data), "hex": data[:SHOWN_BYTES].hex()}


def avro(data: bytes) -> dict[str, Any]:
    """The record in these bytes, whichever of ours it is, without empty fields. Raises codec.DecodeError."""
    name = kind(data)
    if name is None:
        raise codec.DecodeError("neither JSON nor Avro in Confluent's wire format with a known schema id")
    found = codec.decode(data, CLASSES[name])
    return {"record": name, **plain(found)}


def kind(data: bytes) -> str | None:
    """The name of the record whose schema id these bytes begin with; None where there is no such schema."""
    if len(data) < _HEADER.size or data[0] != codec.MAGIC:
        return None
    schema_id = _HEADER.unpack_from(data)[1]
    return next((entry.name for entry in registry.entries() if entry.id == schema_id), None)


def plain(record: Any) -> dict[str, Any]:
    """A record's fields for JSON: enums by value, bytes by size, without fields that are empty."""
    found: dict[str, Any] = {}
    for field in fields(record):
        item = getattr(record, field.name)
        if item is None or item in ("", {}):
            continue
        found[field.name] = (
            item.value if isinstance(item, Enum) else f"{len(item)} bytes" if isinstance(item, bytes) else item
        )
    return found


def text(data: bytes | None, longest: int = LONGEST_KEY) -> str | None:
    """A key or header as text without control characters, capped."""
    if data is None:
        return None
    said = data.decode(errors="backslashreplace")
    return printable(said if len(said) <= longest else f"{said[:longest]}…")


def printable(said: str) -> str:
    """The text on one line, with what could play tricks on a terminal escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in said)


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = strict_json.loads(data)
        json.dumps(found, allow_nan=False)
    except ValueError as error:
        said = str(error) if isinstance(error, strict_json.InvalidJson) else "holds text that cannot be written"
        return {"undecodable": f"JSON that {said}", "bytes": len(data), "hex": data[:SHOWN_BYTES].hex()}
    return {"json": found}
