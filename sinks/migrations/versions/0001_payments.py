"""Tables of the projection: payments, their events, dead letters, offsets; the analysts' view."""

from __future__ import annotations

from alembic import op
from iso4217 import Currency

from sinks.migrate import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables and fill in the currencies."""
    for statement in [*statements("0001_payments.sql"), *statements("0001_payment_status.sql")]:
        op.get_bind().exec_driver_sql(statement)
    rows = ", ".join(f"('{item.code}', {item.exponent})" for item in Currency if item.exponent is not None)
    op.get_bind().exec_driver_sql(f"INSERT INTO currencies (code, exponent) VALUES {rows}")  # noqa: S608 - ISO 4217 only
