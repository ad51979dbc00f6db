"""Cancelling over HTTP: the same command as over Kafka, and refused at once where it is known to come too late. Pure.

The stream decides: between this answer and the command the payment may be sent, and then an event says why it stays.
"""

from __future__ import annotations

from typing import Final, assert_never

from ingress.problem import Problem
from schemas.records import CommandType, PaymentCommand, State

FINAL_ALREADY: Final = Problem(409, "payment-final", "the payment is COMPLETED or FAILED, and stays so")
IN_PROCESSING: Final = Problem(
    409, "payment-in-processing", "the payment may have been sent to its provider, and only the provider ends it now"
)
IN_REVIEW: Final = Problem(409, "payment-in-review", "the payment waits for a person, who ends or repeats it")


def decide(state: State) -> bool:
    """Whether to publish a cancel, given the state as it is known, which may be an older one.

    False: the payment is cancelled already. Raises Problem 409 where a cancel comes too late.
    """
    match state:
        case State.PENDING:
            return True
        case State.CANCELLED:
            return False
        case State.COMPLETED | State.FAILED:
            raise FINAL_ALREADY
        case State.PROCESSING | State.UNKNOWN:
            raise IN_PROCESSING
        case State.REVIEW:
            raise IN_REVIEW
        case _:
            assert_never(state)


def command(payment_id: str, merchant_id: str, now_ms: int) -> PaymentCommand:
    """The command; with its merchant, so that intake checks once more whose payment it is."""
    return PaymentCommand(
        type=CommandType.CANCEL, payment_id=payment_id, merchant_id=merchant_id, accepted_at_ms=now_ms
    )
