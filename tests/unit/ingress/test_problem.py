"""Errors are RFC 9457 problem details."""

from __future__ import annotations

import json

from ingress import problem
from ingress.problem import Problem


def test_a_problem_names_the_field_and_its_code() -> None:
    answer = problem.response(Problem(422, "invalid-field", "must be greater than zero", field="amount"))
    assert answer.status_code == 422
    assert answer.media_type == "application/problem+json"
    assert json.loads(bytes(answer.body)) == {
        "type": "urn:kifiya:problem:invalid-field",
        "title": "Unprocessable Entity",
        "status": 422,
        "code": "invalid-field",
        "detail": "amount must be greater than zero",
        "errors": [{"field": "amount", "detail": "must be greater than zero", "code": "invalid-field"}],
    }


def test_headers_say_when_to_come_again_and_when_the_connection_ends() -> None:
    plain = problem.response(Problem(404, "x", "y"))
    assert "retry-after" not in plain.headers
    assert "connection" not in plain.headers
    bad = problem.response(Problem(503, "x", "y", retry_after_s=3, close=True))
    assert bad.headers["retry-after"] == "3"
    assert bad.headers["connection"] == "close"
