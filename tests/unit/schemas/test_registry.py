"""The bundled registry: ids and schemas that lie in Kafka never change; what is new gets a new id."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from schemas import registry, topics
from schemas.strict_json import loads

FOLDER = Path(registry.__file__).parent / "avro"

FROZEN = {
    # id: (subject, record, version, digest of the schema without its docs)
    1: ("payments.commands-value", "PaymentCommand", 1, "41810e08f18b4a3f"),
    2: ("payments.task-value", "PaymentTask", 1, "fc978b44b303fbf8"),
    3: ("payments.events-value", "PaymentEvent", 1, "29cab0950ea647b9"),
    4: ("payments.results-value", "PaymentResult", 1, "1b5bf27be63031da"),
    5: ("payments.dead-letter-value", "DeadLetter", 1, "19842e9df60723fe"),
    6: ("payments.events-value", "PaymentEvent", 2, "15214b6c4ec4f405"),
    7: ("payments.limiter-value", "LimiterBeat", 1, "ad37b8b4f523120f"),
}


def _without_docs(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_docs(value) for key, value in schema.items() if key != "doc"}
    if isinstance(schema, list):
        return [_without_docs(item) for item in schema]
    return schema


def _digest(entry: registry.Entry) -> str:
    return hashlib.sha256(json.dumps(_without_docs(entry.schema), sort_keys=True).encode()).hexdigest()[:16]


def test_a_registered_schema_never_changes() -> None:
    """A record in Kafka is read with the schema of its id: change a copy, and register it with the next id."""
    found = {entry.id: (entry.subject, entry.name, entry.version, _digest(entry)) for entry in registry.entries()}
    assert found == FROZEN


def test_ids_are_given_once_and_every_file_has_one() -> None:
    ids = loads((FOLDER / "ids.json").read_bytes())  # refuses a key that is there twice
    assert [entry.id for entry in registry.entries()] == sorted(int(key) for key in ids)
    assert sorted(item["file"] for item in ids.values()) == sorted(path.name for path in FOLDER.glob("*.avsc"))
    assert all(0 < entry.id < 2**31 for entry in registry.entries())


@pytest.mark.parametrize("name", sorted({entry.name for entry in registry.entries()}))
def test_a_records_versions_count_up_under_one_subject(name: str) -> None:
    entries = sorted((entry for entry in registry.entries() if entry.name == name), key=lambda entry: entry.version)
    assert [entry.version for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.id for entry in entries] == sorted(entry.id for entry in entries)
    assert len({entry.subject for entry in entries}) == 1
    assert registry.latest(name) == entries[-1]


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: f"{entry.name}-{entry.version}")
def test_a_schema_says_what_it_is(entry: registry.Entry) -> None:
    assert (entry.schema["type"], entry.schema["namespace"], entry.schema["name"]) == (
        "record", "kifiya.payments", entry.name,
    )  # fmt: skip
    assert json.loads(entry.text) == entry.schema
    assert entry.schema["doc"]
    assert [field["name"] for field in entry.schema["fields"] if not field.get("doc")] == []


def test_an_unknown_record_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        registry.latest("Nothing")


def test_each_topic_of_one_record_has_the_subject_that_clients_look_for() -> None:
    """Confluent's default subject of a topic's values is ``<topic>-value``; tasks and beats are on each lane's."""
    subjects = {entry.name: entry.subject for entry in registry.entries()}
    for topic in topics.declare(["simulator"]):
        if topic.value and topic.value not in {"PaymentTask", "LimiterBeat"}:
            assert subjects[topic.value] == f"{topic.name}-value"
    assert subjects["PaymentTask"] == "payments.task-value"
