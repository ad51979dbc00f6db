"""Wire format: Avro in Confluent's framing (0x00, 4-byte big-endian schema id, body), with fastavro on the hot path."""

from __future__ import annotations

import io
import struct
from dataclasses import fields
from typing import Any, Final, TypeVar

import fastavro

from schemas import registry
from schemas.records import (
    CommandType,
    DeadLetter,
    EventType,
    PaymentCommand,
    PaymentEvent,
    PaymentResult,
    PaymentTask,
    Record,
    State,
    TaskKind,
)

R = TypeVar("R", PaymentCommand, PaymentTask, PaymentEvent, PaymentResult, DeadLetter)

MAGIC: Final = 0
_HEADER: Final = struct.Struct(">bI")

_CLASSES: Final[dict[str, type[Record]]] = {
    cls.__name__: cls for cls in (PaymentCommand, PaymentTask, PaymentEvent, PaymentResult, DeadLetter)
}
_ENUMS: Final[dict[str, dict[str, type]]] = {
    "PaymentCommand": {"type": CommandType},
    "PaymentTask": {"kind": TaskKind},
    "PaymentEvent": {"type": EventType, "state": State},
    "PaymentResult": {"status": State},
    "DeadLetter": {},
}


class DecodeError(ValueError):
    """Bytes that are not a record of the expected type; the message names no content of the record."""


def _physical(schema: Any) -> Any:
    """The schema without logical types: times stay integers and ids stay strings, the bytes are the same."""
    if isinstance(schema, dict):
        return {key: _physical(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_physical(item) for item in schema]
    return schema


_PARSED: Final = {
    entry.id: (entry.name, fastavro.parse_schema(_physical(entry.schema))) for entry in registry.entries()
}
_FIELDS: Final = {name: tuple(f.name for f in fields(cls)) for name, cls in _CLASSES.items()}
_WRITERS: Final = {
    name: (_HEADER.pack(MAGIC, entry.id), _PARSED[entry.id][1])
    for name in _CLASSES
    for entry in (registry.latest(name),)
}


def encode(record: Record) -> bytes:
    """The record's bytes for a Kafka value. Raises ValueError for a field of the wrong type."""
    name = type(record).__name__
    header, schema = _WRITERS[name]
    out = io.BytesIO()
    out.write(header)
    fastavro.schemaless_writer(out, schema, {field: getattr(record, field) for field in _FIELDS[name]})
    return out.getvalue()


def decode(value: bytes | None, expected: type[R]) -> R:
    """The record in these bytes, read with its writer's schema. Raises DecodeError, never anything else."""
    name = expected.__name__
    if not value or len(value) < _HEADER.size or value[0] != MAGIC:
        raise DecodeError("the value is not Avro in Confluent's wire format")
    schema_id = _HEADER.unpack_from(value)[1]
    written = _PARSED.get(schema_id)
    if written is None or written[0] != name:
        raise DecodeError(f"schema id {schema_id} is not one of {name}")
    body = io.BytesIO(value)
    body.seek(_HEADER.size)
    try:
        raw: Any = fastavro.schemaless_reader(body, written[1], _WRITERS[name][1])
        for field, enum in _ENUMS[name].items():
            raw[field] = enum(raw[field])
        record = expected(**raw)
    except Exception as error:  # fastavro raises EOFError, IndexError, UnicodeDecodeError, ... on hostile bytes
        raise DecodeError(f"the value is not a {name}: {type(error).__name__}") from error
    if body.tell() != len(value):
        raise DecodeError(f"{len(value) - body.tell()} bytes follow the record")
    return record
