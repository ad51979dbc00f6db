"""The demo's verdict: its records are the ones promised, and it cannot pass when a promise is broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from ops.demo import Verdict, records

GOOD = Verdict(24, 15, 2, 4, 2, 1, 0, 0, 2, 2)


def test_the_demo_sends_what_the_readme_says() -> None:
    sent = records()
    assert (len(sent), sum(record.over_http for record in sent)) == (24, 16)
    seen: dict[str, tuple[str, str]] = {}
    kinds: Counter[str] = Counter()
    for record in sent:
        body = (record.token, record.amount)
        if record.raw:
            kinds["undecodable"] += 1
        elif record.key not in seen:
            seen[record.key] = body
            kinds[record.token] += 1
        else:
            kinds["duplicate" if seen[record.key] == body else "conflict"] += 1
    assert kinds == {
        "pm_approve": 13, "pm_decline": 2, "pm_503_twice": 2, "duplicate": 4, "conflict": 2, "undecodable": 1
    }  # fmt: skip


def test_the_last_line_is_the_promised_one() -> None:
    assert GOOD.holds
    assert GOOD.line() == (
        "24 sent: 15 completed, 2 declined, 4 duplicates, 2 conflicts, 1 undecodable, 0 lost, 0 charged twice, "
        "max 2 calls in any second"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"lost": 1}, {"charged_twice": 1}, {"most_calls": 3}, {"completed": 14}, {"duplicates": 5}, {"sent": 25},
        {"faults": ["order-01: 1 in PostgreSQL, 2 at the provider"]},
    ],
)  # fmt: skip
def test_a_broken_promise_fails_the_demo(change: dict[str, object]) -> None:
    assert not replace(GOOD, **change).holds  # type: ignore[arg-type]
