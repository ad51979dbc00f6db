"""Who grants: tables of what a worker may do, after what it has heard and how long ago."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import LimiterBeat
from streams.limiter.authority import AWAY_S, FORGET_S, Authority, Pace, Peer, Sight, Store, granting, moves, pace

PACE = Pace(5.0, 10.0)
REDIS, POSTGRES = Store.REDIS, Store.POSTGRES


def authority(worker: str = "me", **more: Any) -> Authority:
    found = Authority("lane", worker, PACE, **more)
    for store in Store:
        found.see(store, 0.0, answers=True)
    return found


def away(found: Authority, since: float) -> None:
    found.see(REDIS, since, answers=False)


def word(worker: str = "you", **more: Any) -> LimiterBeat:
    usual: dict[str, Any] = {"beat": 1, "epoch": 0, "settled": True, "redis": True, "postgres": True}
    return LimiterBeat(lane="lane", worker=worker, **(usual | more))


def echo(found: Authority, sent: float, heard: float | None = None) -> LimiterBeat:
    """Tell, and hear it come back."""
    told = found.beat(sent)
    found.hear(told, sent if heard is None else heard)
    return told


def test_epochs_alternate_so_that_all_who_propose_one_propose_the_same() -> None:
    assert [granting(epoch) for epoch in range(4)] == [REDIS, POSTGRES, REDIS, POSTGRES]


@given(window_s=st.floats(0.001, 3600))
def test_between_the_last_call_of_an_epoch_and_the_first_of_the_next_lies_more_than_a_window(window_s: float) -> None:
    """The last is granted up to ``hear_s`` after the new word stands in the log, and used up to a window later."""
    found = pace(window_s)
    assert found.rest_s == 2 * found.hear_s
    assert found.rest_s - (found.hear_s + window_s) >= window_s + 1.0 - 1e-9


def test_a_lane_of_seconds_rests_ten_of_them() -> None:
    assert pace(1.02) == Pace(5.0, 10.0)


def test_who_has_heard_nothing_grants_nothing() -> None:
    found = authority()
    assert found.grants(0.0) is None
    found.beat(0.0)
    assert found.grants(0.1) is None
    found.hear(word(), 0.1)
    assert found.grants(0.2) is None  # another's word says nothing about how much of the log was read


def test_it_is_known_for_five_seconds_from_when_the_beat_was_sent_not_from_when_it_came_back() -> None:
    found = authority()
    echo(found, 0.0, heard=4.0)
    assert found.grants(4.999) is REDIS
    assert found.grants(5.001) is None


@pytest.mark.parametrize("heard", [5.1, 60.0])
def test_a_worker_that_was_stopped_knows_nothing_when_its_old_beat_comes_back(heard: float) -> None:
    found = authority()
    echo(found, 0.0, heard=heard)
    assert found.grants(heard) is None


def test_a_beat_of_an_earlier_start_of_the_process_is_another_workers() -> None:
    found = authority()
    found.hear(word("me", beat=1), 0.0)  # never sent by this one
    assert found.grants(0.0) is None


def test_a_new_epoch_stops_at_once_and_begins_a_rest_after_the_own_word_came_back() -> None:
    found = authority()
    away(found, 0.0)
    echo(found, 0.0)
    assert found.hear(word(epoch=1, settled=False), 1.0)
    assert found.grants(1.0) is None
    told = echo(found, 3.0)
    assert (told.epoch, told.settled) == (1, False)
    for second in range(4, 13):
        assert not echo(found, float(second)).settled
        assert found.grants(second) is None
    assert echo(found, 13.0).settled
    assert found.grants(13.0) is POSTGRES


def test_without_the_own_word_in_the_log_a_new_epoch_never_begins() -> None:
    found = authority()
    found.hear(word(epoch=1, settled=False), 0.0)
    found.hear(word(epoch=1, settled=False, beat=2), 100.0)
    assert found.beat(100.0).settled is False
    assert found.grants(100.0) is None


def test_a_settled_epoch_needs_no_rest() -> None:
    found = authority()
    echo(found, 0.0)
    found.hear(word(epoch=7, settled=True), 1.0)
    assert found.grants(1.0) is POSTGRES


def test_a_rest_that_another_has_had_is_over() -> None:
    found = authority()
    echo(found, 0.0)
    found.hear(word(epoch=1, settled=False), 1.0)
    echo(found, 2.0)
    found.hear(word(epoch=1, settled=True), 3.0)
    assert found.grants(3.0) is POSTGRES


@pytest.mark.parametrize("settled", [True, False])
def test_an_earlier_epoch_that_comes_late_changes_nothing(settled: bool) -> None:
    found = authority()
    echo(found, 0.0)
    found.hear(word(epoch=2, settled=True), 1.0)
    assert not found.hear(word("late", epoch=1, settled=settled), 1.1)
    assert found.epoch == 2
    assert found.grants(1.1) is REDIS


def test_another_lanes_word_is_not_ours() -> None:
    found = authority()
    assert not found.hear(replace(word(epoch=3), lane="other"), 0.0)
    assert found.epoch == 0


GONE, BACK, HERE, NOT = Sight(False, 0.0), Sight(True, 0.0), Sight(True, -100.0), Sight(False, -100.0)


@pytest.mark.parametrize(
    ("here", "redis", "postgres", "peers", "now", "expected"),
    [
        (REDIS, HERE, HERE, [], 100.0, False),
        (REDIS, GONE, HERE, [], AWAY_S - 0.1, False),
        (REDIS, GONE, HERE, [], AWAY_S, True),
        (REDIS, GONE, NOT, [], 100.0, False),
        (REDIS, GONE, HERE, [Peer(0, redis=False, postgres=True)], 100.0, True),
        (REDIS, GONE, HERE, [Peer(0, redis=True, postgres=True)], 100.0, True),  # both can go on there
        (REDIS, GONE, HERE, [Peer(0, redis=True, postgres=False)], 100.0, False),  # that one would be cut off
        (REDIS, GONE, HERE, [Peer(0, redis=False, postgres=False)], 100.0, True),
        (POSTGRES, NOT, HERE, [], 100.0, False),
        (POSTGRES, BACK, HERE, [], AWAY_S - 0.1, False),
        (POSTGRES, BACK, HERE, [], AWAY_S, True),
        (POSTGRES, BACK, HERE, [Peer(0, redis=False, postgres=True)], 100.0, False),
        (POSTGRES, BACK, HERE, [Peer(0, redis=True, postgres=True)], 100.0, True),
        (POSTGRES, BACK, GONE, [], AWAY_S - 0.1, False),
        (POSTGRES, BACK, GONE, [], AWAY_S, True),
        (POSTGRES, NOT, GONE, [], 100.0, False),
    ],
)
def test_a_lane_moves_where_nobody_is_cut_off(
    here: Store, redis: Sight, postgres: Sight, peers: list[Peer], now: float, expected: bool
) -> None:
    assert moves(here, {REDIS: redis, POSTGRES: postgres}, peers, now) is expected


def test_it_proposes_after_ten_seconds_without_redis_and_takes_a_word_never_back() -> None:
    found = authority()
    away(found, 0.0)
    for second in range(10):
        assert echo(found, float(second)).epoch == 0
    told = found.beat(10.0)  # under way: it may be in the log
    assert (told.epoch, told.settled) == (1, False)
    found.see(REDIS, 10.5, answers=True)
    assert found.beat(11.0).epoch == 1
    assert found.grants(11.0) is REDIS  # until it is heard
    found.hear(told, 12.0)
    assert found.grants(12.0) is None


def test_who_does_not_know_who_grants_proposes_nothing() -> None:
    found = authority()
    away(found, 0.0)
    assert found.beat(20.0).epoch == 0  # no beat has come back
    found.hear(word(epoch=1, settled=False), 20.0)
    assert found.beat(20.5).epoch == 1


def test_a_follower_leaves_redis_with_the_others_only_and_returns() -> None:
    found = authority(leaves_redis=False)
    away(found, 0.0)
    for second in range(20):
        assert echo(found, float(second)).epoch == 0
    found.hear(word(epoch=1), 20.0)
    assert echo(found, 20.0).epoch == 1
    found.see(REDIS, 20.0, answers=True)
    assert echo(found, 30.0, heard=30.1).epoch == 1  # the last beat is too old to know
    assert echo(found, 31.0).epoch == 2


def test_a_silent_peer_has_no_say() -> None:
    found = authority()
    found.hear(word(redis=True, postgres=False), 0.0)
    away(found, 0.0)
    for second in (0, 2, 4, 6, 8):
        echo(found, float(second))
    assert found.beat(10.0).epoch == 1


def test_two_that_propose_at_once_agree() -> None:
    one, two = authority("one"), authority("two")
    for found in (one, two):
        away(found, 0.0)
        echo(found, 9.0)
    first, second = one.beat(10.0), two.beat(10.0)
    for found in (one, two):
        found.hear(first, 10.1)
        found.hear(second, 10.2)
        assert found.epoch == 1
    for found, mine in ((one, 20.1), (two, 20.2)):
        echo(found, mine - 0.05)
        assert found.grants(mine - 0.01) is None
        assert found.grants(mine + 0.01) is POSTGRES


def test_the_last_words_of_who_is_gone_are_forgotten_by_who_knows() -> None:
    found = authority()
    found.hear(word(), 0.0)
    assert found.forget(FORGET_S + 1) == []
    echo(found, FORGET_S + 1)
    assert found.forget(FORGET_S + 1) == ["you"]
    assert found.forget(FORGET_S + 1) == []


def test_what_is_under_way_is_bounded() -> None:
    found = authority()
    for second in range(1000):
        found.beat(float(second))
    assert len(found._sent) <= PACE.hear_s + 1
