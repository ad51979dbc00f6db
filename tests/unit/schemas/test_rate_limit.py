"""What a rate limit looks like."""

from __future__ import annotations

import pytest

from schemas import rate_limit


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [("100/second", 100, 1), ("5000/minute", 5000, 60), ("1 per 2 hours", 1, 7200), ("10/day", 10, 86_400)],
)
def test_one_is_read(text: str, amount: int, seconds: int) -> None:
    found = rate_limit.parse(text)
    assert (found.amount, found.get_expiry()) == (amount, seconds)


@pytest.mark.parametrize(
    "text",
    ["", "fast", "0/second", "-1/second", "1/second;5/minute", "1/month", "1.5/second", "10000000000/second", "1/0"],
)
def test_what_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 100/second"):
        rate_limit.parse(text)
