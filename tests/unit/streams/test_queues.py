"""Whose turn it is: shares by weight, nobody starved, no turn lost, and due ones first within bounds."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from streams.queues import (
    DUE,
    DUE_IN_A_ROW,
    FIRST,
    MOST_IN_HAND,
    WEIGHTS,
    Queue,
    Rota,
    drained_s,
    fresh_queues,
    in_hand,
)

ALL = tuple(fresh_queues("a").values())
SETS = st.sets(st.sampled_from((DUE, *ALL)), min_size=1)


def turns(rota: Rota, waiting: tuple[Queue, ...], count: int) -> list[Queue]:
    return [rota.choose(waiting) for _ in range(count)]


def test_the_queues_are_those_of_the_topics() -> None:
    assert tuple(fresh_queues("a")) == topics.queue_topics("a")
    assert (FIRST, Queue(1), Queue(2), Queue(3, 0), Queue(3, 1), Queue(3, 2)) == ALL
    assert len(WEIGHTS) == len(topics.LEVELS)


@given(st.lists(SETS, max_size=60))
def test_while_all_wait_each_level_has_its_share_whatever_was_before(before: list[set[Queue]]) -> None:
    rota = Rota()
    for waiting in before:
        rota.choose(waiting)
    found = Counter(queue.level for queue in turns(rota, ALL, 10 * sum(WEIGHTS)))
    for level, weight in enumerate(WEIGHTS):
        assert abs(found[level] - 10 * weight) <= weight + 1


@given(st.lists(SETS, max_size=60), st.sampled_from(ALL))
def test_nobody_starves(before: list[set[Queue]], who: Queue) -> None:
    """The longest wait is a round of all levels for each queue of its own, with due ones in between."""
    rota = Rota()
    for waiting in before:
        rota.choose(waiting)
    bound = (sum(WEIGHTS) + max(WEIGHTS)) * topics.LEVELS[who.level] * (DUE_IN_A_ROW + 1)
    assert who in turns(rota, (DUE, *ALL), bound)


@given(st.lists(SETS, min_size=1, max_size=200))
def test_a_turn_goes_to_one_who_waits_and_due_ones_are_at_most_three_in_a_row_before_fresh_ones(
    each: list[set[Queue]],
) -> None:
    rota, row = Rota(), 0
    for waiting in each:
        found = rota.choose(waiting)
        assert found in waiting
        row = row + 1 if found == DUE else 0
        assert row <= DUE_IN_A_ROW or waiting == {DUE}
        if DUE in waiting and found != DUE:
            assert row == 0


def test_due_ones_go_first() -> None:
    assert turns(Rota(), (DUE, FIRST), 8) == [DUE, DUE, DUE, FIRST] * 2
    assert turns(Rota(), (DUE,), 5) == [DUE] * 5


@pytest.mark.parametrize("away", range(4))
def test_the_share_of_an_empty_level_goes_to_the_others_and_is_not_saved_up(away: int) -> None:
    rota = Rota()
    rest = tuple(queue for queue in ALL if queue.level != away)
    total = sum(weight for level, weight in enumerate(WEIGHTS) if level != away)
    found = Counter(queue.level for queue in turns(rota, rest, 20 * total))
    assert found == {level: 20 * weight for level, weight in enumerate(WEIGHTS) if level != away}
    back = Counter(queue.level for queue in turns(rota, ALL, sum(WEIGHTS)))
    assert abs(back[away] - WEIGHTS[away]) <= 1


def test_within_the_last_level_the_queues_that_wait_take_turns() -> None:
    last = ALL[3:]
    assert [queue.number for queue in turns(Rota(), last, 6)] == [1, 2, 0, 1, 2, 0]
    rota = Rota()
    assert [queue.number for queue in turns(rota, (last[0], last[2]), 4)] == [2, 0, 2, 0]
    assert [queue.number for queue in turns(rota, last[2:], 2)] == [2, 2]


def test_the_choice_does_not_hang_on_the_order_of_those_who_wait() -> None:
    assert turns(Rota(), ALL, 100) == turns(Rota(), ALL[::-1], 100)


@pytest.mark.parametrize(
    ("waiting", "all_of_lane", "level", "expected_s"),
    [
        (64, 1000, 0, 42.5),
        (16, 16, 0, 8.0),
        (16, 1000, 1, 42.5),
        (100, 100_000, 3, 12_750.0),
        (60_000, 60_010, 3, 30_005.0),
    ],
)
def test_a_queue_is_done_within_its_own_share_or_with_the_whole_lane(
    waiting: int, all_of_lane: int, level: int, expected_s: float
) -> None:
    assert drained_s(waiting, all_of_lane, level, 2.0) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("limit", "window_ms", "partitions", "expected"),
    [(2, 1000, 8, 2), (4, 1000, 8, 3), (5, 1000, 8, 4), (20, 1000, 8, 13), (20, 1000, 32, 4), (60, 60_000, 8, 2),
     (10_000, 1000, 8, MOST_IN_HAND)],
)  # fmt: skip
def test_a_lane_that_calls_more_often_has_more_in_hand(
    limit: int, window_ms: int, partitions: int, expected: int
) -> None:
    assert in_hand(limit, window_ms, partitions) == expected
