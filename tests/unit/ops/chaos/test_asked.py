"""What an answer tells its client, and how a history becomes what the checker takes."""

from __future__ import annotations

import pytest

from ops.chaos.asked import asked, at_home, of_http
from ops.chaos.evidence import Answer, Via
from ops.chaos.history import Entry, Kind

SAID = {
    "payment_id": "p", "merchant_id": "m", "key": "k", "body": "b", "amount_minor": 5, "currency": "USD",
    "cancel": False, "bad": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "replayed", "code", "answer"),
    [
        (201, False, "", Answer.ACCEPTED),
        (202, False, "", Answer.ACCEPTED),
        (200, False, "", Answer.REPEATED),
        (200, True, "", Answer.REPEATED),
        (409, True, "", Answer.REPEATED),
        (409, False, "request-in-progress", Answer.REFUSED),
        (422, False, "idempotency-key-reused", Answer.REFUSED),
        (429, False, "too-many-requests", Answer.REFUSED),
        (503, False, "overloaded", Answer.REFUSED),
        (503, False, "kafka-away", Answer.MAYBE),
        (500, False, "internal-error", Answer.MAYBE),
        (502, False, "", Answer.MAYBE),
    ],
)
def test_an_answer_is_taken_as_what_it_promises(status: int, replayed: bool, code: str, answer: Answer) -> None:
    assert of_http(status, replayed=replayed, code=code) is answer


def entry(kind: Kind, of: str, at_ns: int, **data: object) -> Entry:
    return Entry(kind=kind, at_ns=at_ns, actor="c", of=of, data=dict(data))


def test_a_history_becomes_requests_and_what_nobody_learned_may_have_happened() -> None:
    found = asked(
        [
            *(entry(Kind.INVOKE, f"o{number}", number, via="kafka", **SAID) for number in range(5)),
            entry(Kind.OK, "o0", 10, answer="accepted", origin=["t", 1, 2]),
            entry(Kind.FAIL, "o1", 11, answer="refused", aborted=True),
            entry(Kind.INFO, "o2", 12, answer="maybe"),
            entry(Kind.OK, "o4", 14, answer="repeated"),
        ]
    )
    assert [each.answer for each in found] == [
        Answer.ACCEPTED, Answer.REFUSED, Answer.MAYBE, Answer.MAYBE, Answer.REPEATED,
    ]  # fmt: skip
    assert [each.aborted for each in found] == [False, True, False, False, False]
    assert [each.answered_ns for each in found] == [10, 11, 12, 3, 14]
    assert (found[0].origin, found[0].via, found[0].amount_minor) == (("t", 1, 2), Via.KAFKA, 5)
    moved = at_home(found, {("t", 1, 2): ("t", 7, 9)})
    assert moved[0].origin == ("t", 7, 9)
    assert moved[1:] == found[1:]
