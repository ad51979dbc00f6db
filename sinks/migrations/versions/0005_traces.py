"""The trace that an event belongs to."""

from __future__ import annotations

from alembic import op

from sinks.migrate import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; no row is written anew."""
    for statement in statements("0005_traces.sql"):
        op.get_bind().exec_driver_sql(statement)
