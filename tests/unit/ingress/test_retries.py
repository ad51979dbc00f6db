"""Retries among fresh payments: how many go before one of either kind, against a lane served by dispatch's rota."""

from __future__ import annotations

import random

import pytest

from ingress import retries
from ingress.retries import Tier
from ingress.sample import Line, Sample
from ingress.waiting import BREAKER_OPEN, LATE_MS, NO_WORKER, RETRY, STALE_S, UNKNOWN, Standing, Waiting
from streams.queues import DUE, FIRST, Rota

WALL = 1_700_000_000_000
TIERS = (Tier(2.0, 8.0), Tier(10.0, 20.0))


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 0.0), (1.0, 6.0), (2.0, 12.0), (5.0, 18.0), (99.0, 28.0)])
def test_a_tiers_retries_become_due_evenly(seconds: float, count: float) -> None:
    assert retries.due_within(TIERS, seconds) == count


@pytest.mark.parametrize(
    ("fresh", "due", "tiers", "before"),
    [
        (0.0, 0.0, (), 0.0),
        (0.0, 2.0, (), 2.0),
        (0.0, 100.0, (), 3.0),  # three turns, then it is a fresh one's
        (9.0, 100.0, (), 30.0),
        (100.0, 20.0, (), 20.0),
        (100.0, 20.0, TIERS, 48.0),  # 10 a second: all of them are due by then
        (9.0, 0.0, (Tier(10.0, 10.0),), 1.0),
    ],
)
def test_due_retries_go_before_a_fresh_payment_but_not_all_at_once(
    fresh: float, due: float, tiers: tuple[Tier, ...], before: float
) -> None:
    assert retries.among(fresh, due, tiers, 10.0) == pytest.approx(before, abs=0.2)


@pytest.mark.parametrize(
    ("ahead", "wait_s", "fresh", "before", "eta_s"),
    [
        (0.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, 5.0, 0.0, 0.0, 5.0),  # nothing else waits: its time is its own
        (0.0, 5.0, 7.0, 7.0, 5.0),  # all of them are through by then
        (0.0, 5.0, 1000.0, 50.0, 5.0),
        (20.0, 0.0, 0.0, 20.0, 2.0),
        (30.0, 0.0, 1000.0, 40.0, 4.0),  # every fourth turn is a fresh one's
        (30.0, 0.0, 4.0, 34.0, 3.4),
        (100.0, 5.0, 0.0, 100.0, 10.0),
        (75.0, 5.0, 1000.0, 100.0, 10.0),  # half of them go while it waits
    ],
)
def test_a_retry_is_not_before_its_time_and_stands_behind_those_that_are_due(
    ahead: float, wait_s: float, fresh: float, before: float, eta_s: float
) -> None:
    assert retries.turn(ahead, wait_s, (), fresh, 10.0) == pytest.approx((before, eta_s))


def test_what_waits_in_its_tier_before_it_is_due_before_it() -> None:
    assert retries.turn(0.0, 4.0, (Tier(4.0, 101.0),), 0.0, 10.0) == pytest.approx((100.0, 10.0))
    assert retries.turn(0.0, 2.0, (Tier(4.0, 1.0),), 0.0, 10.0) == (0.0, 2.0)  # it is the one that waits there


def served(due_at: list[float], mine: int, fresh: int, rate: float) -> tuple[int, float]:
    """Serve by the rota, due retries as they become due; how many calls went before this one, and when its own was."""
    rota, now, count, left = Rota(), 0.0, 0, sorted(range(len(due_at)), key=due_at.__getitem__)
    while True:
        waiting = ([DUE] if left and due_at[left[0]] <= now else []) + ([FIRST] if fresh else [])
        if waiting and rota.choose(waiting) is DUE:
            if left.pop(0) == mine:
                return count, now
            count += 1
        elif waiting:
            fresh -= 1
            count += 1
        now += 1 / rate


@pytest.mark.parametrize("seed", range(20))
def test_it_is_as_a_lane_serves(seed: int) -> None:
    chance = random.Random(seed)
    rate = chance.choice((2.0, 50.0))
    due_now, fresh = chance.choice((0, 5, 100, 400)), chance.choice((0, 20, 300, 3000))
    tiers = tuple(Tier(delay_s, chance.choice((0, 1, 40, 300))) for delay_s in (1.0, 5.0, 15.0))
    wait_s = chance.uniform(0.5, 15)
    due_at = [0.0] * due_now + [chance.uniform(0, each.delay_s) for each in tiers for _ in range(round(each.waiting))]
    due_at.append(wait_s)
    own = tiers[-1]
    tiers = (*tiers[:-1], Tier(own.delay_s, own.waiting + 1))
    before, eta_s = retries.turn(due_now, wait_s, tiers, fresh, rate)
    truly, at = served(due_at, len(due_at) - 1, fresh, rate)
    assert eta_s >= wait_s
    assert before == pytest.approx(truly, rel=0.1, abs=15)
    assert eta_s == pytest.approx(at, rel=0.1, abs=15 / rate)


def looked(due: Line, *, fresh: int = 0, tiers: tuple[Tier, ...] = (), paused: str | None = None) -> Waiting:
    """A lane of ten a second, whose due queue was empty four seconds ago, and got all that it has within the next."""
    queue = Waiting(10.0)
    for at, ends, rests in ((-4.0, due.heads, NO_WORKER), (-3.0, due.ends, NO_WORKER), (0.0, due.ends, paused)):
        line, retrying = Line((fresh,) * 4, (0,) * 4), Line(ends, due.heads)
        seen = Sample(at, WALL + round(at * 1000), (line,), retrying, tiers, paused=rests)
        queue.observe(seen, queue.counted())
    return queue


BEHIND = Line((10, 10, 10, 10), (0, 0, 0, 10))


@pytest.mark.parametrize(
    ("queue", "partition", "due_s", "standing"),
    [
        (looked(Line((0,) * 4, (0,) * 4)), 0, 3.0, Standing(1, 3.0)),
        (looked(Line((0,) * 4, (0,) * 4), fresh=5), 0, 3.0, Standing(21, 3.0)),
        (looked(Line((0,) * 4, (0,) * 4)), 0, -1.0, Standing(1, 0.0)),  # it joins the queue just now
        (looked(Line((0,) * 4, (0,) * 4)), 0, -LATE_MS / 1000 - 1, Standing(None, None, RETRY)),
        (looked(BEHIND), 0, -3.0, Standing(29, 2.8)),  # the last of its partition, and the others have as many
        (looked(BEHIND), 0, -60.0, Standing(2, 0.1)),
        (looked(BEHIND), 3, -60.0, Standing(None, None, RETRY)),
        (looked(BEHIND, paused=BREAKER_OPEN), 0, 3.0, Standing(31, None, BREAKER_OPEN)),
        (looked(BEHIND, tiers=(Tier(6.0, 20.0),), paused=BREAKER_OPEN), 0, 3.0, Standing(41, None, BREAKER_OPEN)),
        (looked(Line((), ())), 0, 3.0, Standing(None, None, UNKNOWN)),
    ],
)
def test_a_retry_has_its_place_while_it_waits_for_its_time_and_when_it_is_due(
    queue: Waiting, partition: int, due_s: float, standing: Standing
) -> None:
    assert queue.retry(partition, WALL + round(due_s * 1000), 0.0, WALL) == standing


def test_time_since_the_look_is_waited_already() -> None:
    queue = looked(BEHIND)
    assert queue.retry(0, WALL - 3000, 2.0, WALL + 2000) == Standing(9, 0.8)
    assert queue.retry(0, WALL + 5000, 2.0, WALL + 2000) == Standing(11, 3.0)  # it is called before it could be due
    assert queue.retry(0, WALL + 5000, STALE_S + 1, WALL) == Standing(None, None, UNKNOWN)
