"""Indexes for lists of payments, and the one of their metadata."""

from __future__ import annotations

from alembic import op

from sinks.migrate import statements

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the indexes, and index what is there."""
    for statement in statements("0004_reads.sql"):
        op.get_bind().exec_driver_sql(statement)
