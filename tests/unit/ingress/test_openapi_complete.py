"""Nobody has to guess: every operation says what it is for, what goes in and out, and each answer that it gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from ingress.models import KEY_ANSWERS
from ingress.problem import MEDIA_TYPE
from tests.unit.ingress.served import app

Way = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
DOCUMENT: Way = app().openapi()
OPERATIONS: dict[str, Way] = {
    f"{method.upper()} {path}": ways[method]
    for path, ways in DOCUMENT["paths"].items()
    for method in METHODS
    if method in ways
}
OURS = [name for name in OPERATIONS if " /v1/" in name]


def whole(node: Any) -> Any:
    """A part of the document with its references put in."""
    if isinstance(node, dict):
        if "$ref" in node:
            return whole(DOCUMENT["components"]["schemas"][node["$ref"].rpartition("/")[2]])
        return {name: whole(value) for name, value in node.items()}
    return [whole(value) for value in node] if isinstance(node, list) else node


def examples(content: Way) -> Iterator[Any]:
    """The examples of one media type, or those of its schema."""
    if "example" in content:
        yield content["example"]
    for each in content.get("examples", {}).values():
        yield each["value"]
    yield from whole(content.get("schema", {})).get("examples", [])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_it_is_for(name: str) -> None:
    way = OPERATIONS[name]
    assert len(way["summary"]) > 5
    assert len(way["description"]) > 20
    assert way["tags"]
    assert way["operationId"]


def test_no_two_operations_share_a_name() -> None:
    for field in ("operationId", "summary"):
        names = [way[field] for way in OPERATIONS.values()]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_parameter_is_described_with_a_true_example(name: str) -> None:
    path = {part[1:-1] for part in name.split("/") if part.startswith("{")}
    parameters = OPERATIONS[name].get("parameters", [])
    assert path == {each["name"] for each in parameters if each["in"] == "path"}
    for each in parameters:
        assert len(each["description"]) > 10, each["name"]
        judge = jsonschema_rs.validator_for(whole(each["schema"]))
        assert judge.is_valid(each["example"]), each["name"]


@pytest.mark.parametrize("name", [name for name in OPERATIONS if "requestBody" in OPERATIONS[name]])
def test_a_body_has_an_example_that_its_schema_takes(name: str) -> None:
    body = OPERATIONS[name]["requestBody"]
    assert body["required"] is True
    for content in body["content"].values():
        judge = jsonschema_rs.validator_for(whole(content["schema"]))
        found = list(examples(content))
        assert found
        assert [each for each in found if not judge.is_valid(each)] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_answer_has_a_shape_and_an_example_of_it(name: str) -> None:
    answers = OPERATIONS[name]["responses"]
    assert [code for code in answers if code < "400"]
    for code, answer in answers.items():
        assert answer["description"], code
        for kind, content in answer["content"].items():
            found = list(examples(content))
            assert found, (code, kind)
            schema = whole(content["schema"])
            judge = jsonschema_rs.validator_for(schema)
            assert [each for each in found if not judge.is_valid(each)] == [], (code, kind)


@pytest.mark.parametrize("name", OURS)
def test_each_error_is_a_problem_with_its_own_status(name: str) -> None:
    for code, answer in OPERATIONS[name]["responses"].items():
        if code < "400":
            continue
        assert MEDIA_TYPE in answer["content"], code
        for example in examples(answer["content"][MEDIA_TYPE]):
            assert example["status"] == int(code)
            assert example["type"] == f"urn:kifiya:problem:{example['code']}"
        said = json.dumps([*examples(answer["content"][MEDIA_TYPE])])
        if code in {"429", "503"} or "request-in-progress" in said:
            assert "Retry-After" in answer["headers"], code


@pytest.mark.parametrize("name", OURS)
def test_the_answers_that_apply_are_there(name: str) -> None:
    way = OPERATIONS[name]
    codes = set(way["responses"])
    assert codes >= {*KEY_ANSWERS, "500"}
    assert way["security"] == [{"api_key": []}]
    if "{payment_id}" in name:
        assert "404" in codes
    if "requestBody" in way:
        assert codes >= {"400", "408", "413", "415"}
    if way.get("parameters") and any(each["in"] == "query" for each in way["parameters"]):
        assert "400" in codes
