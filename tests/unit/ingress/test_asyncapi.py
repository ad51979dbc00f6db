"""The AsyncAPI document: valid by the specification's own schema, and true to the topics, the records and the rules."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from ingress import asyncapi, asyncapi_page
from schemas import codec, command, registry, seal, topics
from schemas.records import (
    CommandType,
    DeadLetter,
    EventType,
    PaymentCommand,
    PaymentEvent,
    PaymentResult,
    PaymentTask,
    State,
    TaskKind,
)
from tests.unit.ingress.fakes import LANES, World

OFFICIAL = Path(__file__).parent / "vendor" / "asyncapi-3.0.0.json"
"""From the npm package @asyncapi/specs 6.11.1, Apache License 2.0, unchanged."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi.document(sorted(LANES))


@pytest.fixture(scope="module")
def official() -> Any:
    return jsonschema_rs.Draft7Validator(json.loads(OFFICIAL.read_text()))


def test_it_is_asyncapi(document: dict[str, Any], official: Any) -> None:
    assert [str(error)[:300] for error in official.iter_errors(json.loads(json.dumps(document)))] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found.update(asyncapi="2.6.0"),
        lambda found: found["info"].pop("title"),
        lambda found: found["operations"]["receive-payments.commands"].update(action="publish"),
        lambda found: found["channels"]["payments.events"].update(subscribe={}),
        lambda found: found["channels"]["payments.events"]["bindings"]["kafka"].update(partitions=0),
        lambda found: found["components"]["messages"]["PaymentEvent"].update(payload=7),
        lambda found: found["servers"]["kafka"].pop("protocol"),
    ],
)
def test_the_schema_sees_what_is_wrong(
    document: dict[str, Any], official: Any, spoil: Callable[[dict[str, Any]], object]
) -> None:
    spoiled = copy.deepcopy(document)
    spoil(spoiled)
    assert not official.is_valid(spoiled)


def test_every_topic_is_a_channel_with_its_settings(document: dict[str, Any]) -> None:
    declared = {topic.name: topic for topic in topics.declare(sorted(LANES))}
    assert list(document["channels"]) == list(declared)
    for name, channel in document["channels"].items():
        bound = channel["bindings"]["kafka"]
        assert (channel["address"], bound["partitions"]) == (name, declared[name].partitions)
        said = {key: str(value[0] if isinstance(value, list) else value) for key, value in
                bound["topicConfiguration"].items()}  # fmt: skip
        assert said == declared[name].config
        assert (declared[name].value or None) == next(iter(channel["messages"]), None)
    ways = {each["channel"]["$ref"]: each["action"] for each in document["operations"].values()}
    assert ways == {
        "#/channels/payments.commands": "receive",
        **dict.fromkeys(
            ("#/channels/payments.events", "#/channels/payments.results", "#/channels/payments.dead-letter"), "send"
        ),
    }


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    assert {f"#/components/messages/{name}" for name in document["components"]["messages"]} <= found


def test_the_schemas_are_those_that_are_registered(document: dict[str, Any]) -> None:
    messages = document["components"]["messages"]
    for name in set(messages) - {asyncapi.JSON_COMMAND}:
        entry = registry.latest(name)
        assert messages[name]["payload"]["schema"] == entry.schema
        assert (messages[name]["x-schema-id"], messages[name]["x-subject"]) == (entry.id, entry.subject)


ENUMS: dict[type, dict[str, type]] = {
    PaymentCommand: {"type": CommandType},
    PaymentTask: {"kind": TaskKind},
    PaymentEvent: {"type": EventType, "state": State},
    PaymentResult: {"status": State},
    DeadLetter: {"original": str.encode},  # type: ignore[dict-item]
}


@pytest.mark.parametrize("record", list(ENUMS))
def test_the_examples_are_records(record: Any, document: dict[str, Any]) -> None:
    [example] = document["components"]["messages"][record.__name__]["examples"]
    fields = dict(example["payload"])
    for name, made in ENUMS[record].items():
        fields[name] = made(fields[name])
    whole = record(**fields)
    assert codec.decode(codec.encode(whole), record) == whole


def test_the_examples_in_json_are_commands_and_the_schema_knows_them_from_others(document: dict[str, Any]) -> None:
    message = document["components"]["messages"][asyncapi.JSON_COMMAND]
    judge = jsonschema_rs.Draft202012Validator(message["payload"])
    for example in message["examples"]:
        assert command.from_json(example["payload"], lanes=LANES, accepted_at_ms=0)
        assert judge.is_valid(example["payload"])
        for wrong in ({"type": "refund"}, {"card": "x"}, {"merchant_id": "a b"}):
            assert not judge.is_valid({**example["payload"], **wrong})
            with pytest.raises(command.InvalidCommand):
                command.from_json({**example["payload"], **wrong}, lanes=LANES, accepted_at_ms=0)


async def test_both_are_served_and_the_page_needs_nothing_else() -> None:
    app = World().app()
    asyncapi_page.install(app, LANES)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway") as client:
        served = await client.get("/asyncapi.json")
        page = await client.get("/asyncapi")
    assert served.json() == asyncapi.document(sorted(LANES))
    assert page.headers["content-type"].startswith("text/html")
    assert "style-src" in page.headers["content-security-policy"]
    text = page.text
    assert "<script" not in text
    assert set(re.findall(r'(?:src|href)="([^"]+)"', text)) == {"/asyncapi.json", "/docs"}
    for topic in topics.declare(sorted(LANES)):
        assert f"<code>{topic.name}</code>" in text
    for name in ("PaymentCommand", "PaymentEvent", "PaymentResult", "DeadLetter"):
        for field in registry.latest(name).schema["fields"]:
            assert f"<code>{field['name']}</code>" in text


def test_what_stands_in_the_document_cannot_break_the_page(document: dict[str, Any]) -> None:
    hostile = json.loads(json.dumps(document).replace("What a merchant asks for", "<script>alert(1)</script>"))
    assert "<script" in json.dumps(hostile)
    assert "<script" not in asyncapi_page.render(hostile)


def test_a_seal_is_described_where_it_stands_and_as_it_looks(document: dict[str, Any]) -> None:
    name, made = seal.Seals(["a secret of the tests longer than 32 bytes"]).header(b"v", 1_800_000_000_000)
    described = {
        message: found["headers"]["properties"][name]["pattern"]
        for message, found in document["components"]["messages"].items()
        if name in found["headers"]["properties"]
    }
    assert described.keys() == {"PaymentCommand", asyncapi.JSON_COMMAND, "DeadLetter"}
    assert all(re.search(pattern, made.decode()) for pattern in described.values())
    assert "KAFKA_MERCHANTS" in document["channels"][topics.COMMANDS]["description"]
