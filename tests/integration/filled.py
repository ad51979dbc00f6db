"""A table of payments to list, filled by PostgreSQL itself, and a filter of each kind."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import asyncpg

START: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SINGLE: Final[dict[str, dict[str, Any]]] = {
    "status": {"status": "FAILED"},
    "lane": {"lane": "rare"},
    "customer": {"customer_id": "c7"},
    "metadata": {"metadata": (("channel", "web"),)},
    "time": {"since": START, "before": START + dt.timedelta(hours=1)},
}
"""By name, a filter of each kind that is documented."""

_FILL: Final = """
INSERT INTO payments (payment_id, merchant_id, idempotency_key, fingerprint, state, version, amount_minor, currency,
                      payment_method, customer_id, metadata, lane, attempt, accepted_at, updated_at)
SELECT gen_random_uuid(), CASE WHEN i % 10 = 0 THEN 'small' ELSE 'shop' END, 'k' || i, 'f',
       CASE WHEN i % 50 = 7 THEN 'FAILED' WHEN i % 3 = 0 THEN 'PENDING' ELSE 'COMPLETED' END, 1, 1250, 'USD',
       'pm_approve', CASE WHEN i % 2 = 1 THEN 'c' || i % 5000 END,
       jsonb_build_object('order', i::text, 'channel', CASE WHEN i % 7 = 0 THEN 'shop' ELSE 'web' END),
       CASE WHEN i % 500 = 1 THEN 'rare' ELSE 'simulator' END, 0, $3::timestamptz + i / 2 * interval '1 ms', now()
FROM generate_series($1::int, $2::int) AS i"""


async def fill(db: asyncpg.Connection, first: int, last: int) -> None:
    """Payments number ``first`` to ``last``, two in each millisecond: nine of ten are the merchant ``shop``'s."""
    await db.execute(_FILL, first, last, START)
