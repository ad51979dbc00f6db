"""A payment looks the same, whether Redis or PostgreSQL knows it."""

from __future__ import annotations

import datetime as dt

import pytest

from ingress import views
from ingress.models import Payment
from schemas import command as commands
from schemas.command import MAX_INSTANT_MS
from tests.unit.ingress.fakes import BODY, ID, KEY, LANES, row


def test_both_views_have_the_documented_fields() -> None:
    command = commands.create(BODY, idempotency_key=KEY, lanes=LANES, accepted_at_ms=1_769_860_800_123)
    accepted = views.accepted(command, "simulator")
    stored = views.stored(row())
    assert [*accepted, "queue"] == [*stored, "queue"] == list(Payment.model_fields)
    accepted["queue"] = stored["queue"] = None
    assert Payment.model_validate(accepted).version == 0
    assert Payment.model_validate(stored).status == "COMPLETED"
    assert accepted["payment_id"] == stored["payment_id"] == ID
    assert accepted["created_at"] == "2026-01-31T12:00:00.123Z"
    assert stored["created_at"] == "2026-01-31T12:00:00.000Z"


@pytest.mark.parametrize(
    ("currency", "minor", "amount"), [("USD", 1, "0.01"), ("JPY", 100, "100"), ("KWD", 1234, "1.234"),
    ("USD", 10**15, "1" + "0" * 13 + ".00")]
)  # fmt: skip
def test_amounts_are_decimal_strings(currency: str, minor: int, amount: str) -> None:
    assert views.stored(row(amount_minor=minor, currency=currency))["amount"] == amount


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2030-01-31T12:00:00+03:00", "2030-01-31T09:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
    ],
)
def test_every_expiry_that_is_taken_can_be_shown(text: str, shown: str) -> None:
    command = commands.create({**BODY, "expires_at": text}, idempotency_key=KEY, lanes=LANES, accepted_at_ms=0)
    assert command.expires_at_ms is not None
    assert command.expires_at_ms <= MAX_INSTANT_MS
    assert views.accepted(command, "simulator")["expires_at"] == shown
    stored = row(expires_at=dt.datetime.fromisoformat(text))
    assert views.stored(stored)["expires_at"] == shown


@pytest.mark.parametrize(("column", "shown"), [('{"a": "b"}', {"a": "b"}), ("{}", {}), (None, {})])
def test_metadata_comes_from_its_json(column: str | None, shown: dict[str, str]) -> None:
    assert views.stored(row(metadata=column))["metadata"] == shown
