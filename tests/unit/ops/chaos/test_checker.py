"""The judge sees every planted violation, says which promise it breaks, and lets a healthy run pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ops.chaos import checker
from ops.chaos.evidence import Answer, Arrival, Blind, Charge, Letter, Skew, Told, Via
from schemas import topics
from schemas.records import EventType, State
from tests.unit.ops.chaos.world import LANE, WALL_NS, Run, S, asked, changed, event, healthy

ALL_BLIND = Blind(lost=[(90 * S, 100 * S)], deaf=[(90 * S, 100 * S)], unwritten=[(90 * S, 100 * S)])

Plant = Callable[[Run], None]


def broken(run: Run) -> set[str]:
    return {found.promise for found in checker.check(run.evidence())}


def test_a_healthy_run_breaks_nothing() -> None:
    assert checker.check(healthy().evidence()) == []


def a_row_is_lost(run: Run) -> None:
    del run.rows["p0"]


def it_never_was(run: Run) -> None:
    run.asked.append(asked(80))


def a_repeat_of_nothing(run: Run) -> None:
    run.asked.append(asked(80, answer=Answer.REPEATED))


def it_is_stuck(run: Run) -> None:
    run.payment(80, State.PENDING)
    del run.results["p80"]


def a_result_is_lost(run: Run) -> None:
    del run.results["p20"]


def a_review_nobody_hears_of(run: Run) -> None:
    run.letters = [each for each in run.letters if each.payment_id != "p50"]


def a_row_is_behind(run: Run) -> None:
    run.rows["p10"] = replace(run.rows["p10"], version=5)


def a_result_contradicts(run: Run) -> None:
    run.results["p0"] = replace(run.results["p0"], state=State.FAILED)


def a_payment_in_review_has_a_result(run: Run) -> None:
    run.results["p50"] = Told(State.COMPLETED, 5, 1050, "USD")


def a_payment_of_nobody(run: Run) -> None:
    run.payment(80, State.COMPLETED)
    run.asked = [each for each in run.asked if each.payment_id != "p80"]


def a_version_is_left_out(run: Run) -> None:
    run.events = [each for each in run.events if (each.payment_id, each.version) != ("p10", 3)]


def a_version_is_told_in_two_ways(run: Run) -> None:
    found = next(each for each in run.events if (each.payment_id, each.version) == ("p10", 5))
    run.events.append(replace(found, reason="another"))


def a_final_state_is_left(run: Run) -> None:
    run.events.append(event("p0", 4, State.PENDING, EventType.CALL_FINISHED, 2 * S))
    run.rows["p0"] = replace(run.rows["p0"], state=State.PENDING, version=4)


def a_second_charge(run: Run) -> None:
    run.charges.append(Charge("p0", "p0-again", approved=True, amount_minor=1000, currency="USD"))


def a_new_key_on_a_retry(run: Run) -> None:
    at = next(place for place, each in enumerate(run.arrivals) if each.payment_id == "p10")
    run.arrivals[at] = replace(run.arrivals[at], key="p10-again")


def two_requests_to_a_provider_without_keys(run: Run) -> None:
    run.keys = False


def completed_and_not_charged(run: Run) -> None:
    run.charges = [each for each in run.charges if each.payment_id != "p0"]


def failed_and_charged(run: Run) -> None:
    run.charges.append(Charge("p20", "p20", approved=True, amount_minor=1020, currency="USD"))


def another_amount_is_charged(run: Run) -> None:
    run.charges = [replace(each, amount_minor=1) if each.payment_id == "p0" else each for each in run.charges]


def another_currency_is_charged(run: Run) -> None:
    run.charges = [replace(each, currency="EUR") if each.payment_id == "p0" else each for each in run.charges]


def a_cancelled_payment_is_called(run: Run) -> None:
    run.events.append(event("p30", 3, State.CANCELLED, EventType.CALL_INTENDED, 35 * S))
    run.rows["p30"] = run.results["p30"] = replace(run.rows["p30"], version=3)
    run.arrivals.append(Arrival(36 * S, LANE, "POST", "p30", "p30"))


def a_charge_of_nobody(run: Run) -> None:
    run.charges.append(Charge("p99", "p99", approved=True, amount_minor=1, currency="USD"))


def two_bodies_under_one_key(run: Run) -> None:
    run.asked.append(asked(0, body="other", amount_minor=7))


def another_amount_than_asked(run: Run) -> None:
    run.asked = [replace(each, amount_minor=1) if each.payment_id == "p10" else each for each in run.asked]


def refused_and_taken(run: Run) -> None:
    run.payment(80, State.COMPLETED, answer=Answer.REFUSED)


def a_body_that_the_stream_refused_in_sight(run: Run) -> None:
    run.asked.append(asked(0, body="other", amount_minor=7, answered_ns=99 * S))
    run.letter((topics.COMMANDS, 1, 99), "idempotency-conflict", "p0")


def a_body_that_nobody_refused(run: Run) -> None:
    run.asked.append(asked(0, body="other", amount_minor=7, answered_ns=99 * S))
    run.blind = ALL_BLIND


def another_body_is_called_a_repeat(run: Run) -> None:
    run.asked.append(asked(0, body="other", answer=Answer.REPEATED))


def an_aborted_command_is_taken(run: Run) -> None:
    run.payment(75, State.COMPLETED)
    run.asked = [each for each in run.asked if each.payment_id != "p75" or each.aborted]


def three_calls_in_a_second(run: Run) -> None:
    run.payment(80, State.COMPLETED, calls=1)
    run.payment(81, State.COMPLETED, calls=1)
    run.payment(82, State.COMPLETED, calls=1)
    run.arrivals = [
        replace(each, at_ns=83 * S + number) if each.payment_id in {"p80", "p81", "p82"} else each
        for number, each in enumerate(run.arrivals)
    ]


def a_call_of_an_unknown_account(run: Run) -> None:
    run.arrivals[0] = replace(run.arrivals[0], account="other")


def a_call_before_its_intent(run: Run) -> None:
    changed(run, "p0", 2, at_ms=run.events[1].at_ms + 50)


def a_call_without_an_intent(run: Run) -> None:
    run.arrivals.append(Arrival(3 * S, LANE, "POST", "p0", "p0"))


def a_bad_record_without_a_letter(run: Run) -> None:
    run.asked.append(asked(80, via=Via.KAFKA, origin=(topics.COMMANDS, 1, 80), bad=True))


def a_letter_with_two_reasons(run: Run) -> None:
    run.letters.append(Letter((topics.COMMANDS, 1, 72), "invalid-field", None))


def a_letter_that_sql_does_not_have(run: Run) -> None:
    run.stored.remove((topics.COMMANDS, 1, 72))


def a_bad_request_is_accepted(run: Run) -> None:
    run.asked.append(asked(80, bad=True))


def money_is_lost(run: Run) -> None:
    run.rows["p20"] = run.results["p20"] = replace(run.rows["p20"], amount_minor=1)


def a_card_number_is_stored(run: Run) -> None:
    run.leaks.append("payments.events/3/17")


def it_takes_too_long(run: Run) -> None:
    run.healed_ns = -55 * S


def a_late_intent_that_no_wrong_clock_explains(run: Run) -> None:
    """The clock was ahead by a second then; the intent is told two after the call."""
    a_clock_that_is_ahead(run, 0, 2, 1000)
    changed(run, "p0", 2, at_ms=run.events[1].at_ms + 2000)


def a_late_intent_after_the_clock_is_right(run: Run) -> None:
    a_clock_that_is_ahead(run, 20, 29, 1000)
    changed(run, "p0", 2, at_ms=run.events[1].at_ms + 1000)


def an_end_that_is_late_by_any_clock(run: Run) -> None:
    it_takes_too_long(run)
    a_clock_that_is_ahead(run, 0, 2, 3_600_000)


def a_pause_in_accepting(run: Run) -> None:
    """The healthy run takes one every ten seconds, and the last at the 60th."""
    run.accepts_within_ns = 9 * S


def refused_for_too_long(run: Run) -> None:
    run.accepts_within_ns = 15 * S
    run.asked += [asked(number, answer=Answer.REFUSED) for number in range(61, 77)]


def creates_that_stop_for_good(run: Run) -> None:
    """The last one over HTTP is taken at the 50th second and asked for at the 70th; other requests go on."""
    run.accepts_within_ns = 25 * S
    run.asked.append(asked(80, bad=True, answer=Answer.REFUSED))


def a_request_to_a_provider_with_keys_that_has_none(run: Run) -> None:
    run.arrivals.append(Arrival(79 * S, LANE, "POST", "", ""))


def nameless_requests_over_the_limit(run: Run) -> None:
    nameless_requests(run, 3)


def nameless_requests(run: Run, count: int) -> None:
    """A provider without keys got no body; nobody was called twice."""
    run.keys = False
    named = {each.payment_id: each for each in run.arrivals}
    run.arrivals = list(named.values()) + [Arrival(85 * S + number, LANE, "POST", "", "") for number in range(count)]


def a_clock_that_is_ahead(run: Run, begin_s: int, end_s: int, ms: int) -> None:
    run.skews.append(Skew(begin_s * S, end_s * S, ms * 1_000_000))


def a_lane_that_stands_still(run: Run) -> None:
    run.calls_within_ns = 6 * S
    run.arrivals[0] = replace(run.arrivals[0], at_ns=run.arrivals[0].at_ns + 7 * S)


@pytest.mark.parametrize(
    ("plant", "promises"),
    [
        (a_row_is_lost, {"nothing-lost", "one-story", "books-agree", "conserved"}),
        (it_never_was, {"nothing-lost", "conserved"}),
        (a_repeat_of_nothing, {"nothing-lost", "conserved"}),
        (it_is_stuck, {"nothing-lost", "conserved"}),
        (a_result_is_lost, {"nothing-lost"}),
        (a_review_nobody_hears_of, {"nothing-lost"}),
        (a_row_is_behind, {"one-story"}),
        (a_result_contradicts, {"one-story"}),
        (a_payment_in_review_has_a_result, {"one-story"}),
        (a_payment_of_nobody, {"one-story"}),
        (a_version_is_left_out, {"versions-rise"}),
        (a_version_is_told_in_two_ways, {"versions-rise"}),
        (a_final_state_is_left, {"versions-rise", "nothing-lost", "one-story", "conserved"}),
        (a_second_charge, {"charged-once"}),
        (a_new_key_on_a_retry, {"charged-once"}),
        (two_requests_to_a_provider_without_keys, {"asked-once"}),
        (completed_and_not_charged, {"books-agree"}),
        (failed_and_charged, {"books-agree"}),
        (another_amount_is_charged, {"books-agree"}),
        (another_currency_is_charged, {"books-agree"}),
        (a_cancelled_payment_is_called, {"books-agree"}),
        (a_charge_of_nobody, {"books-agree", "one-story"}),
        (two_bodies_under_one_key, {"as-asked"}),
        (a_body_that_the_stream_refused_in_sight, {"as-asked"}),
        (a_body_that_nobody_refused, {"as-asked"}),
        (another_amount_than_asked, {"as-asked", "conserved"}),
        (refused_and_taken, {"as-asked"}),
        (another_body_is_called_a_repeat, {"as-asked"}),
        (an_aborted_command_is_taken, {"as-asked", "one-story"}),
        (three_calls_in_a_second, {"limit-kept"}),
        (a_call_of_an_unknown_account, {"limit-kept"}),
        (a_call_before_its_intent, {"intended-first"}),
        (a_call_without_an_intent, {"intended-first"}),
        (a_bad_record_without_a_letter, {"bad-input-told"}),
        (a_letter_with_two_reasons, {"bad-input-told"}),
        (a_letter_that_sql_does_not_have, {"bad-input-told"}),
        (a_bad_request_is_accepted, {"bad-input-told"}),
        (money_is_lost, {"conserved", "as-asked"}),
        (a_card_number_is_stored, {"no-card-numbers"}),
        (it_takes_too_long, {"in-time"}),
        (a_late_intent_that_no_wrong_clock_explains, {"intended-first"}),
        (a_late_intent_after_the_clock_is_right, {"intended-first"}),
        (an_end_that_is_late_by_any_clock, {"in-time"}),
        (a_pause_in_accepting, {"goes-on-accepting"}),
        (refused_for_too_long, {"goes-on-accepting"}),
        (a_lane_that_stands_still, {"goes-on-calling"}),
        (creates_that_stop_for_good, {"goes-on-accepting"}),
        (a_request_to_a_provider_with_keys_that_has_none, {"one-story", "intended-first"}),
        (nameless_requests_over_the_limit, {"limit-kept"}),
    ],
)
def test_each_planted_violation_is_seen_and_named(plant: Plant, promises: set[str]) -> None:
    run = healthy()
    plant(run)
    assert broken(run) == promises


def test_every_promise_has_a_planted_violation() -> None:
    names = {promise.__name__.replace("_", "-") for promise in checker.PROMISES}
    marks = [each for each in test_each_planted_violation_is_seen_and_named.pytestmark if each.name == "parametrize"]  # type: ignore[attr-defined]
    assert set().union(*(promises for _, promises in marks[0].args[1])) == names


def test_who_waits_while_others_are_called_waits_for_no_standstill() -> None:
    run = healthy()
    run.payment(1, State.COMPLETED)
    a_lane_that_stands_still(run)
    run.arrivals += [Arrival(number * S, LANE, "GET", "p10", "p10") for number in range(1, 7)]
    assert "goes-on-calling" not in broken(run)


@pytest.mark.parametrize(
    ("number", "calls", "more", "late"),
    [
        (122, 1, 0, True),  # it ends a minute and 1.1 s after the heal: one call takes half a second
        (114, 5, 0, False),
        (132, 1, 100, True),  # nobody is called so often
    ],
)
def test_each_call_after_the_last_heal_has_its_time(number: int, calls: int, more: int, *, late: bool) -> None:
    run = healthy()
    run.healed_ns = 61 * S
    run.payment(number, State.COMPLETED, calls=calls)
    name = f"p{number}"
    run.arrivals += [Arrival(62 * S + each * S // 2, LANE, "GET", name, name) for each in range(more)]
    assert ("in-time" in broken(run)) == late


@pytest.mark.parametrize(
    ("ahead_ms", "otherwise"),
    [
        (150, {"intended-first"}),
        (3_600_000, {"intended-first", "in-time"}),
    ],
)
def test_what_a_wrong_clock_said_is_taken_by_that_clock(ahead_ms: int, otherwise: set[str]) -> None:
    """The worker's clock was wrong while it made the three calls of p10; it told its intents and ends by it."""
    run = healthy()
    a_clock_that_is_ahead(run, 9, 17, ahead_ms)
    run.events = [
        replace(each, at_ms=each.at_ms + ahead_ms) if each.payment_id == "p10" and each.version > 1 else each
        for each in run.events
    ]
    run.healed_ns = 17 * S
    assert broken(run) == set()
    run.skews.clear()
    assert broken(run) == otherwise


def test_a_clock_that_was_behind_is_looked_for_among_the_clocks_of_that_moment() -> None:
    """It read the 5th second at the 15th: an end that is late by the true clock, and in time by no other."""
    run = healthy()
    a_clock_that_is_ahead(run, 9, 17, -10_000)
    assert run.evidence().moments((WALL_NS + 5 * S) // 1_000_000) == [5 * S, 15 * S]
    assert run.evidence().moments((WALL_NS + 15 * S) // 1_000_000) == [15 * S]


def test_requests_that_name_nobody_are_nobodys_but_the_limits() -> None:
    run = healthy()
    nameless_requests(run, 2)
    assert broken(run) == set()


def test_http_goes_on_accepting_where_each_create_is_soon_followed_by_another() -> None:
    run = healthy()
    run.accepts_within_ns = 10 * S + 1
    run.asked += [asked(number, answer=Answer.REFUSED) for number in range(71, 79)]
    run.asked = [each for each in run.asked if each.via is Via.HTTP and each.payment_id != "p70"]
    run.asked.append(asked(70, answer=Answer.REPEATED))
    assert "goes-on-accepting" in broken(run)  # p60 came over Kafka: from the 50th second to the 70th
    run.accepts_within_ns = 20 * S + 1
    assert "goes-on-accepting" not in broken(run)


def test_what_may_have_been_taken_may_be_there_or_not() -> None:
    run = healthy()
    assert "p70" not in run.rows
    run.payment(70, State.COMPLETED, answer=Answer.MAYBE)
    assert broken(run) == set()
    run.charges.append(Charge("p70", "p70", approved=True, amount_minor=1070, currency="USD"))
    assert broken(run) == {"charged-once"}
