"""When to try again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import backoff

TIERS_MS = (1000, 2000, 5000, 15_000, 60_000, 300_000)


@pytest.mark.parametrize(
    ("attempt", "chance", "retry_after_s", "tier_ms"),
    [
        (1, 0.0, None, 1000),
        (1, 0.999, None, 1000),
        (2, 0.0, None, 1000),
        (2, 0.999, None, 2000),
        (3, 0.0, None, 2000),
        (3, 0.999, None, 5000),
        (5, 0.0, None, 15_000),
        (8, 0.999, None, 300_000),
        (99, 0.0, None, 300_000),
        (0, 0.0, None, 1000),
        (1, 0.0, 0.0, 1000),
        (1, 0.0, 1.0, 1000),
        (1, 0.0, 1.001, 2000),
        (1, 0.0, 7.0, 15_000),
        (1, 0.0, 3600.0, 300_000),
        (8, 0.999, 1.0, 300_000),
    ],
)
def test_the_tier_follows_from_attempt_chance_and_retry_after(
    attempt: int, chance: float, retry_after_s: float | None, tier_ms: int
) -> None:
    assert TIERS_MS[backoff.choose_tier(attempt, TIERS_MS, retry_after_s, lambda: chance)] == tier_ms


def test_no_tiers_are_an_error() -> None:
    with pytest.raises(ValueError, match="no retry tiers"):
        backoff.choose_tier(1, (), None, lambda: 0.0)


@given(
    attempt=st.integers(0, 10_000),
    tiers=st.lists(st.integers(1, 10_000_000), min_size=1, max_size=8, unique=True).map(sorted),
    retry_after_s=st.none() | st.floats(0, 10_000),
    chance=st.floats(0, 0.9999),
)
def test_it_is_never_sooner_than_asked_unless_no_tier_is_longer(
    attempt: int, tiers: list[int], retry_after_s: float | None, chance: float
) -> None:
    chosen = tiers[backoff.choose_tier(attempt, tiers, retry_after_s, lambda: chance)]
    assert chosen >= (retry_after_s or 0.0) * 1000 or chosen == tiers[-1]
    ceiling = min(1000 * 2 ** min(max(attempt, 1) - 1, 60), tiers[-1])
    assert chosen >= ceiling / 2 or chosen == tiers[-1]
