"""The outbox of the ingress."""

from __future__ import annotations

from alembic import op

from sinks.migrate import statements

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    for statement in statements("0003_outbox.sql"):
        op.get_bind().exec_driver_sql(statement)
