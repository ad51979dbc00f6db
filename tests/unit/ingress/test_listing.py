"""The SQL of pages: which filter an index serves, and that the others are bounded."""

from __future__ import annotations

import itertools
import re

import pytest

from ingress import listing
from ingress.filters import Filters
from tests.integration.filled import SINGLE


@pytest.mark.parametrize(
    "chosen", [chosen for size in range(len(SINGLE) + 1) for chosen in itertools.combinations(SINGLE, size)]
)
def test_every_value_is_an_argument_and_every_argument_is_used(chosen: tuple[str, ...]) -> None:
    found = Filters(**{name: value for each in chosen for name, value in SINGLE[each].items()})
    asked = listing.query(found, "shop")
    numbers = {int(number) for number in re.findall(r"\$(\d+)", asked.page)}
    assert numbers == set(range(1, len(asked.arguments) + 1))
    assert not any(value in asked.page for value in ("FAILED", "rare", "c7", "'web'", "shop"))
    if asked.last_examined:
        numbers = {int(number) for number in re.findall(r"\$(\d+)", asked.last_examined)}
        assert numbers == set(range(1, asked.shared + 1))
        assert f"LIMIT {listing.EXAMINED}" in asked.page
