"""Wire format: Avro in Confluent's framing (0x00, 4-byte big-endian schema id, body), with fastavro on the hot path."""

from __future__ import annotations

import io
import operator
import struct
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar

import fastavro

from schemas import registry
from schemas.records import (
    CommandType,
    DeadLetter,
    EventType,
    LimiterBeat,
    PaymentCommand,
    PaymentEvent,
    PaymentResult,
    PaymentTask,
    Record,
    State,
    TaskKind,
)

R = TypeVar("R", PaymentCommand, PaymentTask, PaymentEvent, PaymentResult, DeadLetter, LimiterBeat)

MAGIC: Final = 0
_HEADER: Final = struct.Struct(">bI")

_CLASSES: Final[dict[str, type[Record]]] = {
    cls.__name__: cls for cls in (PaymentCommand, PaymentTask, PaymentEvent, PaymentResult, DeadLetter, LimiterBeat)
}
_ENUMS: Final[dict[str, dict[str, type]]] = {
    "PaymentCommand": {"type": CommandType},
    "PaymentTask": {"kind": TaskKind},
    "PaymentEvent": {"type": EventType, "state": State},
    "PaymentResult": {"status": State},
    "DeadLetter": {},
    "LimiterBeat": {},
}


class EncodeError(ValueError):
    """A record that its schema cannot carry; the message names no content of the record."""


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
_VALUES: Final = {name: operator.attrgetter(*names) for name, names in _FIELDS.items()}
_WRITERS: Final = {
    name: (_HEADER.pack(MAGIC, entry.id), _PARSED[entry.id][1])
    for name in _CLASSES
    for entry in (registry.latest(name),)
}
_BITS: Final = {"int": 31, "long": 63}


def _numbers(name: str) -> tuple[tuple[str, int, bool], ...]:
    """Of each whole number of a record: its field, the first that is too large, whether it may be null."""
    found = []
    for field in registry.latest(name).schema["fields"]:
        branches = _physical(field["type"])
        for branch in branches if isinstance(branches, list) else [branches]:
            kind = branch["type"] if isinstance(branch, dict) else branch
            if kind in _BITS:
                found.append((field["name"], 2 ** _BITS[kind], isinstance(branches, list)))
    return tuple(found)


_NUMBERS: Final = {name: _numbers(name) for name in _CLASSES}


def _wrong_number(name: str, raw: Mapping[str, Any]) -> str | None:
    """The first field that is no whole number of its width: fastavro cuts fractions off and knows one width only."""
    for field, limit, optional in _NUMBERS[name]:
        value = raw[field]
        if value is None and optional:
            continue
        if type(value) is not int or not -limit <= value < limit:
            return field
    return None


def encode(record: Record) -> bytes:
    """The record's bytes for a Kafka value. Raises EncodeError for a field of the wrong type, or a number too large."""
    name = type(record).__name__
    header, schema = _WRITERS[name]
    raw = dict(zip(_FIELDS[name], _VALUES[name](record), strict=True))
    wrong = _wrong_number(name, raw)
    if wrong is not None:
        raise EncodeError(f"{name}.{wrong} is not a whole number of its width")
    out = io.BytesIO()
    out.write(header)
    try:
        fastavro.schemaless_writer(out, schema, raw)
    except Exception as error:  # noqa: BLE001 - TypeError, AttributeError, UnicodeEncodeError, ...
        raise EncodeError(f"the record is not a {name}: {type(error).__name__}") from None  # its text quotes the value
    return out.getvalue()


def decode_any(value: bytes | None) -> Record:
    """The record in these bytes, whichever it is. Raises DecodeError, never anything else."""
    written = _PARSED.get(_HEADER.unpack_from(value)[1]) if value and len(value) >= _HEADER.size else None
    if written is None:
        raise DecodeError("the value is none of the gateway's records")
    expected: Any = _CLASSES[written[0]]
    found: Record = decode(value, expected)
    return found


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
        expects = _WRITERS[name][1]
        raw: Any = fastavro.schemaless_reader(body, written[1], None if written[1] is expects else expects)
        for field, enum in _ENUMS[name].items():
            raw[field] = enum(raw[field])
        wrong = _wrong_number(name, raw)
        record = expected(**raw)
    except Exception as error:  # fastavro raises EOFError, IndexError, UnicodeDecodeError, ... on hostile bytes
        raise DecodeError(f"the value is not a {name}: {type(error).__name__}") from error
    if wrong is not None:
        raise DecodeError(f"{name}.{wrong} is too large for its width")
    if body.tell() != len(value):
        raise DecodeError(f"{len(value) - body.tell()} bytes follow the record")
    return record
