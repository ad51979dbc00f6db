"""The limiter's log for lanes whose Redis is away."""

from __future__ import annotations

from alembic import op

from sinks.migrate import statements

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table and the function that reserves."""
    for statement in statements("0007_limiter.sql"):
        op.get_bind().exec_driver_sql(statement)
