"""A permit is the right to write between two moments, and none before or after."""

from __future__ import annotations

import pytest

from streams.errors import PermitExpired
from streams.limiter.port import Permit

PERMIT = Permit(opens_at=10.0, closes_at=10.02, slot_us=1)


@pytest.mark.parametrize("now", [10.0, 10.01, 10.02])
def test_it_may_be_used_while_it_is_open(now: float) -> None:
    PERMIT.check(now)


def test_one_that_comes_too_late_is_none() -> None:
    with pytest.raises(PermitExpired, match=r"1\.0 ms late"):
        PERMIT.check(10.021)


def test_one_that_is_not_open_yet_is_a_defect_of_ours() -> None:
    with pytest.raises(ValueError, match="not open yet"):
        PERMIT.check(9.999)
