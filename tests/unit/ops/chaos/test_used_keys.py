"""Another body under a used key that HTTP took and the stream refused: when the judge excuses it, and when not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.chaos.evidence import Answer, Blind
from schemas import topics
from tests.unit.ops.chaos.test_checker import ALL_BLIND, a_body_that_the_stream_refused_in_sight, broken
from tests.unit.ops.chaos.world import S, asked, healthy


@pytest.mark.parametrize(
    ("blind", "why"),
    [
        (ALL_BLIND, ""),
        (Blind(lost=[(50 * S, 51 * S)], unwritten=[(98 * S, 100 * S)]), "forgotten in between"),
        (Blind(deaf=[(0, 1)], unwritten=[(98 * S, 100 * S)]), "not told at first"),
        (Blind(deaf=[(98 * S, 100 * S)], unwritten=[(98 * S, 100 * S)]), "not asked at last"),
    ],
)
def test_another_body_that_http_could_not_know_for_one_and_the_stream_refused_is_excused(
    blind: Blind, why: str
) -> None:
    run = healthy()
    a_body_that_the_stream_refused_in_sight(run)
    run.blind = blind
    assert broken(run) == set(), why


@pytest.mark.parametrize(
    ("blind", "why"),
    [
        (Blind(unwritten=[(0, 100 * S)]), "Redis had it"),
        (Blind(lost=[(0, 100 * S)], deaf=[(0, 100 * S)]), "PostgreSQL had it"),
        (Blind(lost=[(-9 * S, -1)], deaf=[(1, 98 * S)], unwritten=[(0, 100 * S)]), "each at the wrong time"),
    ],
)
def test_another_body_that_http_should_have_known_is_not(blind: Blind, why: str) -> None:
    run = healthy()
    a_body_that_the_stream_refused_in_sight(run)
    run.blind = blind
    assert broken(run) == {"as-asked"}, why


def test_who_was_not_told_whether_it_was_taken_sent_the_first_request_all_the_same() -> None:
    """The ingress died between Kafka's ack and its answer; its client went on half a minute later."""
    run = healthy()
    first = next(each for each in run.asked if each.payment_id == "p0")
    run.asked = [replace(each, answered_ns=80 * S) if each.payment_id == "p0" else each for each in run.asked]
    run.asked.append(replace(first, answer=Answer.MAYBE, answered_ns=70 * S))
    run.asked.append(asked(0, body="other", amount_minor=7, answered_ns=99 * S))
    run.letter((topics.COMMANDS, 1, 99), "idempotency-conflict", "p0")
    run.blind = Blind(deaf=[(69 * S, 71 * S)])
    assert broken(run) == set()
