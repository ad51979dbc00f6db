"""The API's description is complete: examples that the rules accept, and every error that the routes give."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingress import filters, shapes
from ingress.models import NewPayment, Payment
from schemas import command as commands
from schemas.records import State
from tests.unit.ingress.fakes import KEY, LANES, World


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return World().app().openapi()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    parts = document["components"]["schemas"]
    text = json.dumps(document)
    wanted = {name.split('"')[0] for name in text.split("#/components/schemas/")[1:]}
    assert wanted <= set(parts)
    assert "HTTPValidationError" not in wanted  # FastAPI's own 422 is never given


@pytest.mark.parametrize(
    ("path", "method", "codes"),
    [
        (
            "/v1/payments",
            "post",
            {"200", "201", "400", "401", "403", "429", "408", "409", "413", "415", "422", "500", "503"},
        ),
        ("/v1/payments/{payment_id}", "get", {"200", "401", "403", "404", "429", "500", "503"}),
        ("/v1/lanes", "get", {"200", "401", "403", "429", "500", "503"}),
        ("/v1/lanes/{lane}", "get", {"200", "401", "403", "404", "429", "500", "503"}),
        ("/v1/payments/batch", "post", {"200", "400", "401", "403", "429", "408", "413", "415", "500", "503"}),
        ("/v1/payments", "get", {"200", "400", "401", "403", "429", "500", "503"}),
        ("/v1/payments/{payment_id}/events", "get", {"200", "400", "401", "403", "404", "429", "500", "503"}),
        (
            "/v1/payments/{payment_id}/cancel",
            "post",
            {"200", "202", "400", "401", "403", "404", "429", "408", "409", "413", "500", "503"},
        ),
        ("/readyz", "get", {"200", "503"}),
    ],
)
def test_every_answer_is_described(document: dict[str, Any], path: str, method: str, codes: set[str]) -> None:
    answers = document["paths"][path][method]["responses"]
    assert set(answers) == codes
    for code, answer in answers.items():
        assert answer["description"]
        if code[0] in "45" and path.startswith("/v1"):
            assert "application/problem+json" in answer["content"]


def test_the_create_is_described(document: dict[str, Any]) -> None:
    create = document["paths"]["/v1/payments"]["post"]
    key = create["parameters"][0]
    assert (key["name"], key["in"], key["required"]) == ("Idempotency-Key", "header", True)
    assert create["requestBody"]["content"]["application/json"]["schema"]["examples"]
    assert create["responses"]["201"]["headers"]["Location"]


def test_every_filter_is_described_and_its_example_is_taken(document: dict[str, Any]) -> None:
    described = {each["name"]: each for each in document["paths"]["/v1/payments"]["get"]["parameters"]}
    assert set(described) == {"status", "lane", "customer_id", "metadata", "created_from", "created_before", "limit",
                              "cursor"}  # fmt: skip
    bare = {name: each["example"] for name, each in described.items() if name != "cursor"}
    pairs = [(name, str(value[0] if isinstance(value, list) else value)) for name, value in bare.items()]
    found = filters.parse(pairs, "shop")
    assert len(filters.cursor(found, "shop", found.end)) == described["cursor"]["schema"]["maxLength"]
    assert set(described["status"]["schema"]["enum"]) == set(State)
    [trail] = shapes.Events.model_json_schema()["examples"]
    assert shapes.Events.model_validate(trail)
    [page] = shapes.PaymentList.model_json_schema()["examples"]
    assert shapes.PaymentList.model_validate(page)


def test_the_examples_are_true() -> None:
    [new] = NewPayment.model_json_schema()["examples"]
    [made] = Payment.model_json_schema()["examples"]
    command = commands.create(new, idempotency_key=KEY, lanes=LANES, accepted_at_ms=0)
    assert set(new) <= commands.CREATE_FIELDS == set(NewPayment.model_fields)
    assert command.merchant_id == made["merchant_id"]
    assert Payment.model_validate(made)
