"""When a payment's retry may run."""

from __future__ import annotations

from alembic import op

from sinks.migrate import statements

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; no row is written anew."""
    for statement in statements("0006_retries.sql"):
        op.get_bind().exec_driver_sql(statement)
