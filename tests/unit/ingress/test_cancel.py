"""Which states a cancel is published for, and what the others are answered."""

from __future__ import annotations

import pytest

from ingress import cancel
from ingress.problem import Problem
from schemas import command as commands
from schemas.records import State
from tests.unit.ingress.fakes import ID

LATE = {
    State.COMPLETED: "payment-final",
    State.FAILED: "payment-final",
    State.PROCESSING: "payment-in-processing",
    State.UNKNOWN: "payment-in-processing",
    State.REVIEW: "payment-in-review",
}


def test_only_a_payment_that_waits_is_cancelled() -> None:
    assert {state for state in State if state not in LATE and cancel.decide(state)} == {State.PENDING}


@pytest.mark.parametrize(("state", "code"), LATE.items())
def test_a_cancel_that_comes_too_late_is_told_why(state: State, code: str) -> None:
    with pytest.raises(Problem) as found:
        cancel.decide(state)
    assert (found.value.status, found.value.code) == (409, code)


def test_the_command_is_one_that_intake_takes() -> None:
    made = cancel.command(ID, "shop", 7)
    assert commands.check(made, lanes=frozenset()) == made
