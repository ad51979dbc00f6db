"""How far ahead a slot is asked for."""

from __future__ import annotations

import random

import pytest

from streams.lead import FIRST_S, LEAST_S, REMEMBERED, SLACK, Lead


def lead_for(longest_s: float) -> float:
    """The lead after preparations of which the longest took so long."""
    return longest_s * SLACK + LEAST_S


def test_it_begins_with_a_guess_and_then_follows_the_longest_of_the_last() -> None:
    lead = Lead(1.02)
    assert lead.seconds() == lead_for(FIRST_S)
    lead.took(0.200)
    assert lead.seconds() == lead_for(0.200)
    for _ in range(REMEMBERED - 1):
        lead.took(0.001)
    assert lead.seconds() == lead_for(0.200)
    lead.took(0.001)
    assert lead.seconds() == lead_for(0.001)


def test_no_slot_is_further_ahead_than_a_window() -> None:
    lead = Lead(0.2)
    lead.took(30.0)
    assert lead.seconds() == 0.2


def test_of_preparations_that_vary_as_on_kafka_at_most_one_in_twenty_takes_longer() -> None:
    chance, lead, late = random.Random(7), Lead(1.02), 0
    for _ in range(5000):
        took = chance.lognormvariate(-4.6, 0.6)  # about 10 ms, one in a hundred over 40 ms
        late += took > lead.seconds() + 0.010
        lead.took(took)
    assert late <= 0.05 * 5000


def test_the_turn_is_kept_until_two_leads_before_the_slot() -> None:
    lead = Lead(longest_s=0.1)
    assert lead.turn_s(1.0) == pytest.approx(1.0 - 2 * lead.seconds())
    assert lead.turn_s(lead.seconds()) == 0.0
    assert lead.turn_s(-1.0) == 0.0
