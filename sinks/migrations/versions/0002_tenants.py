"""Merchants, API keys, the roles of the gateway's parts, and row-level security."""

from __future__ import annotations

from alembic import op

from sinks.migrate import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables and roles, and protect what is there."""
    for statement in statements("0002_tenants.sql"):
        op.get_bind().exec_driver_sql(statement)
