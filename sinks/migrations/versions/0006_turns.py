"""What a payment waits for: its retry's time, or its turn in a queue."""

from __future__ import annotations

from alembic import op

from sinks.migrate import statements

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; no row is written anew."""
    for statement in statements("0006_turns.sql"):
        op.get_bind().exec_driver_sql(statement)
