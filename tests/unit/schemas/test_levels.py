"""Which level a merchant sends into."""

from __future__ import annotations

import pytest

from schemas import topics
from schemas.levels import LIMITS, WEIGHTS, level


@pytest.mark.parametrize(
    ("waiting", "expected"), [(-5.0, 0), (0, 0), (15.9, 0), (16, 1), (127, 1), (128, 2), (1023, 2), (1024, 3), (1e9, 3)]
)
def test_the_more_waits_the_lower_the_level(waiting: float, expected: int) -> None:
    assert level(waiting) == expected


def test_each_level_has_its_limit_its_weight_and_its_queues() -> None:
    assert len(LIMITS) + 1 == len(WEIGHTS) == len(topics.LEVELS)
    assert sorted(WEIGHTS, reverse=True) == list(WEIGHTS)
