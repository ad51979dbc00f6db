"""The bundled schema registry: fixed ids from ``avro/ids.json``, read-only, one schema per record and version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "avro"


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered schema. ``text`` is the file as checked in, ``schema`` the same parsed."""

    id: int
    subject: str
    name: str
    version: int
    text: str
    schema: dict[str, Any]


@cache
def entries() -> tuple[Entry, ...]:
    """All registered schemas, by id."""
    ids = json.loads((_FOLDER / "ids.json").read_text())
    found = []
    for schema_id, item in ids.items():
        text = (_FOLDER / item["file"]).read_text()
        found.append(Entry(int(schema_id), item["subject"], item["name"], item["version"], text, json.loads(text)))
    return tuple(sorted(found, key=lambda entry: entry.id))


def latest(name: str) -> Entry:
    """The newest version of a record's schema. Raises KeyError."""
    versions = [entry for entry in entries() if entry.name == name]
    if not versions:
        raise KeyError(name)
    return max(versions, key=lambda entry: entry.version)
