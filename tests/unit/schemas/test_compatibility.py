"""Schemas change backward compatibly: whoever has the newer one reads what the older one wrote, and means the same."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from schemas import registry
from tests.unit.schemas.compatibility import incompatibilities

SUBJECTS = sorted({entry.subject for entry in registry.entries()})


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_version_reads_the_one_before(subject: str) -> None:
    versions = [
        entry.schema for entry in sorted(registry.entries(), key=lambda e: e.version) if entry.subject == subject
    ]
    for old, new in itertools.pairwise(versions):
        assert incompatibilities(new, old) == []


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: f"{entry.name}-{entry.version}")
def test_a_schema_reads_what_it_wrote(entry: registry.Entry) -> None:
    assert incompatibilities(entry.schema, entry.schema) == []


BASE: dict[str, Any] = {
    "type": "record",
    "name": "Base",
    "namespace": "kifiya.payments",
    "fields": [
        {"name": "state", "type": {"type": "enum", "name": "S", "symbols": ["A", "B"]}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "amount", "type": "long"},
        {"name": "attempt", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "ends", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "meta", "type": {"type": "map", "values": "string"}, "default": {}},
        {"name": "inner", "type": {"type": "record", "name": "I", "fields": [
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}},
    ],
}  # fmt: skip


def _field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(field for field in schema["fields"] if field["name"] == name)
    return found


def _set(field: str, /, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda schema: _field(schema, field).update(values)


def _set_type(field: str, /, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda schema: _field(schema, field)["type"].update(values)


def _add(**field: Any) -> Callable[[dict[str, Any]], None]:
    return lambda schema: schema["fields"].append(field)


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


@pytest.mark.parametrize(
    ("promise", "change"),
    [
        ("a new field needs a default", _add(name="new", type="string")),
        ("a nullable new field needs one too", _add(name="new", type=["null", "string"])),
        ("a default is of the first branch", _add(name="new", type=["null", "string"], default="x")),
        ("a default is of its type", _add(name="new", type="long", default="x")),
        ("a field keeps its name", _set("amount", name="amount_minor")),
        ("a long stays a long", _set("amount", type="int")),
        ("a number stays a number", _set("amount", type="string")),
        ("what may be null stays so", _set("note", type="string", default="")),
        ("an enum keeps its symbols", _set_type("state", symbols=["A"])),
        ("an enum keeps its name", _set_type("state", name="T")),
        ("a record keeps its name", lambda schema: schema.update(name="Other")),
        ("a map keeps its values", _set("meta", type={"type": "map", "values": "long"})),
        # what avro.compatibility lets pass
        ("milliseconds stay milliseconds", _set_type("at", logicalType="timestamp-micros")),
        ("where they may be null too", _set("ends", type=["null", MICROS])),
        ("a time stays a time", _set("at", type="long")),
        ("a number does not become a time", _set("amount", type=MILLIS)),
        ("a UUID stays one", _set("id", type="string")),
        ("cents stay cents", _set_type("price", scale=3)),
        ("a decimal keeps its width", _set_type("price", precision=8)),
        ("a decimal stays one", _set("price", type="bytes")),
        ("inside a record too", lambda schema: _field(schema, "inner")["type"]["fields"][0].update(type=MICROS)),
        ("a time that becomes optional stays one", _set("at", type=["null", "long"])),
    ],
)
def test_an_incompatible_change_is_caught(promise: str, change: Callable[[dict[str, Any]], None]) -> None:
    changed = copy.deepcopy(BASE)
    change(changed)
    assert incompatibilities(changed, BASE), promise


@pytest.mark.parametrize(
    "change",
    [
        _add(name="new", type=["null", "string"], default=None),
        _add(name="new", type="long", default=0),
        _add(name="new", type={"type": "map", "values": "string"}, default={}),
        _set("attempt", type="long"),
        _set("amount", type=["null", "long"], default=None),
        _set("at", type=["null", MILLIS], default=None),
        _set("amount", name="amount_minor", aliases=["amount"]),
        _set("amount", doc="Minor units."),
        _set_type("state", symbols=["A", "B", "C"]),
        lambda schema: schema["fields"].pop(),
    ],
)
def test_a_compatible_change_is_let_through(change: Callable[[dict[str, Any]], None]) -> None:
    changed = copy.deepcopy(BASE)
    change(changed)
    assert incompatibilities(changed, BASE) == []


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: f"{entry.name}-{entry.version}")
def test_each_field_of_our_schemas_is_guarded(entry: registry.Entry) -> None:
    """Take a field away and add it without its default: the check has to cry for every one of them."""
    for place, field in enumerate(entry.schema["fields"]):
        older, newer = copy.deepcopy(entry.schema), copy.deepcopy(entry.schema)
        del older["fields"][place]
        newer["fields"][place].pop("default", None)
        assert incompatibilities(newer, older), field["name"]
