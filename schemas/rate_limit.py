"""Rate limits as settings and merchants name them: ``100/second``, ``5000/minute``. Pure."""

from __future__ import annotations

from typing import Final

import limits

LONGEST_S: Final = 86_400
MOST: Final = 10**9


def parse(text: str) -> limits.RateLimitItem:
    """The one limit that is named. Raises ValueError that says what one looks like."""
    try:
        [found] = limits.parse_many(text)
    except ValueError as error:
        raise ValueError("must be one limit, such as 100/second or 5000/minute") from error
    if not (1 <= found.amount <= MOST and found.get_expiry() <= LONGEST_S):
        raise ValueError(f"must allow 1 to {MOST} requests in a day at most, such as 100/second")
    return found
