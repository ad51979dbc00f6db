"""The load generator's HTTP: answers come in any pieces; a payment is a valid one."""

from __future__ import annotations

import json

import pytest

from ops.bench.wire import Answers, request
from schemas import command

CREATED = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_answers_are_told_whatever_pieces_they_come_in(size: int) -> None:
    stream, answers = CREATED + BUSY + CREATED, Answers()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert [status for piece in pieces for status in answers.feed(piece)] == [201, 503, 201]


def test_an_answer_is_told_only_when_it_is_whole() -> None:
    answers = Answers()
    assert answers.feed(CREATED[:-1]) == []
    assert answers.feed(CREATED[-1:]) == [201]


def test_an_answer_without_a_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        Answers().feed(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_request_asks_for_a_valid_payment() -> None:
    head, _, body = request("/v1/payments", "run-1", "kfy_test_1.2").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/payments HTTP/1.1"
    assert f"Content-Length: {len(body)}" in lines
    assert "Idempotency-Key: run-1" in lines
    assert "Authorization: Bearer kfy_test_1.2" in lines
    found = command.create(
        {"merchant_id": "bench", **json.loads(body)}, idempotency_key="run-1", lanes=frozenset(), accepted_at_ms=1
    )
    assert found.amount_minor == 1250
