"""The estimator against a simulated lane, whose clock is an argument: what it says against what then happens."""

from __future__ import annotations

import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from ingress.history import POINTS, History
from ingress.pace import STRETCH_S, WINDOW_S, Arrivals, Pace
from ingress.sample import Line, Sample
from ingress.turns import Turns
from ingress.waiting import BREAKER_OPEN, NO_WORKER, STALE_S, UNKNOWN, Standing, Waiting

PARTITIONS = 8


def sample(
    at: float, wall_ms: int, ends: tuple[int, ...], heads: tuple[int, ...], due: int = 0, due_done: int = 0, **more: Any
) -> Sample:
    return Sample(at, wall_ms, (Line(ends, heads),), Line((due_done + due,), (due_done,)), **more)


def look(queue: Waiting, seen: Sample) -> None:
    queue.observe(seen, queue.counted())


def before(backlogs: list[float], partition: int, ahead: float, joining: float = 0.0) -> float:
    return Turns().served_before([backlogs], (0, partition), ahead, [joining])


WALL = 1_700_000_000_000


@dataclass
class Lane:
    """Serves ``rate`` a second, one partition after the other; commits are told a second late."""

    rate: float
    seed: int = 1
    now: float = 0.0
    queues: list[deque[int]] = field(default_factory=lambda: [deque() for _ in range(PARTITIONS)])
    ends: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    heads: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    served_at: dict[int, float] = field(default_factory=dict)
    late: deque[tuple[float, tuple[int, ...]]] = field(default_factory=deque)
    turn: int = 0
    owed: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def add(self, name: int) -> int:
        partition = self.random.randrange(PARTITIONS)
        self.queues[partition].append(name)
        self.ends[partition] += 1
        return partition

    def run(self, seconds: float, step_s: float = 0.02) -> None:
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += step_s
            self.owed = min(self.owed + self.rate * step_s, 1.0 + self.rate * step_s)
            while self.owed >= 1 and any(self.queues):
                while not self.queues[self.turn]:
                    self.turn = (self.turn + 1) % PARTITIONS
                self.served_at[self.queues[self.turn].popleft()] = self.now
                self.heads[self.turn] += 1
                self.turn = (self.turn + 1) % PARTITIONS
                self.owed -= 1
            self.late.append((self.now, tuple(self.heads)))

    def sample(self, **changes: object) -> Sample:
        while len(self.late) > 1 and self.late[1][0] <= self.now - 0.25:
            self.late.popleft()
        heads = self.late[0][1] if self.late else (0,) * PARTITIONS
        return Sample(self.now, self.wall_ms, (Line(tuple(self.ends), heads),), **changes)  # type: ignore[arg-type]

    @property
    def wall_ms(self) -> int:
        return WALL + round(self.now * 1000)


def told_wrongly_by(lane: Lane, promises: dict[int, tuple[float, float | None]]) -> float:
    """The largest error of these promises (moment, seconds to wait), as a part of the true wait."""
    errors = []
    for name, (at, eta_s) in promises.items():
        assert eta_s is not None
        waited_s = lane.served_at[name] - at
        errors.append(abs(eta_s - waited_s) / waited_s)
    return max(errors)


@pytest.mark.parametrize(("rate", "limit"), [(50.0, 50.0), (41.0, 49.0), (2.0, 2.0)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_steady_backlog_of_2000_is_told_within_5_percent(rate: float, limit: float, seed: int) -> None:
    """Steady: what is served is made up for, through another process."""
    lane, queue, promises = Lane(rate, seed), Waiting(limit), {}
    names = itertools.count(100_000)
    for second in range(round(6000 / rate)):
        while sum(map(len, lane.queues)) < 2000:
            lane.add(next(names))
        queue.observe(lane.sample(), queue.counted())
        if 15 < second < 3600 / rate:
            partition = lane.add(second)
            promises[second] = lane.now, queue.last(0, partition, lane.now).eta_s
        lane.run(1.0)
    served = {name: promise for name, promise in promises.items() if name in lane.served_at}
    assert len(served) > len(promises) * 0.9 > 0
    assert told_wrongly_by(lane, served) <= 0.05


def test_2000_that_came_at_once_are_told_within_5_percent() -> None:
    lane, queue, promises = Lane(50.0), Waiting(49.0), {}
    accepted: dict[int, tuple[int, int]] = {}
    for name in range(2000):
        if name % 1000 == 0:
            queue.observe(lane.sample(), queue.counted())
        accepted[name] = lane.add(name), lane.wall_ms
        queue.joined(0, *accepted[name])
        lane.run(0.001, 0.001)
    for second in range(25):
        queue.observe(lane.sample(), queue.counted())
        if second == 15:
            for name in set(accepted) - set(lane.served_at):
                promises[name] = lane.now, queue.of((0,), *accepted[name], lane.now, lane.wall_ms).eta_s
        lane.run(1.0)
    lane.run(60.0)
    latest = {name: promise for name, promise in promises.items() if lane.served_at[name] > 37.0}
    assert latest
    assert told_wrongly_by(lane, latest) <= 0.05


def test_one_that_waits_already_is_told_by_when_it_was_accepted() -> None:
    lane, queue, promises = Lane(50.0), Waiting(50.0), {}
    accepted: dict[int, tuple[int, int]] = {}
    for name in range(3000):
        if name % 100 == 0:
            queue.observe(lane.sample(), queue.counted())
        accepted[name] = lane.add(name), lane.wall_ms
        queue.joined(0, *accepted[name])
        lane.run(0.01, 0.01)
    for _ in range(3):
        lane.run(1.0)
        queue.observe(lane.sample(), queue.counted())
    for name in (2000, 2400, 2800, 2999):
        promises[name] = lane.now, queue.of((0,), *accepted[name], lane.now, lane.wall_ms).eta_s
    lane.run(60.0)
    assert told_wrongly_by(lane, promises) <= 0.05


def test_what_joins_between_two_samples_counts_at_once() -> None:
    queue = Waiting(10.0)
    look(queue, sample(0.0, WALL, (5, 5), (0, 0)))
    assert queue.last(0, 0, 0.0) == Standing(11, 1.0)
    for _ in range(10):
        queue.joined(0, 0, WALL)
        queue.joined(0, 1, WALL)
    assert queue.last(0, 0, 0.0) == Standing(31, 3.0)
    counted = queue.counted()
    queue.joined(0, 1, WALL)
    queue.observe(sample(1.0, WALL + 1000, (15, 15), (5, 5)), counted)
    found = queue.last(0, 1, 1.0)
    assert found.position == pytest.approx(22, abs=1)


def test_what_intake_has_in_hand_is_ahead() -> None:
    queue = Waiting(10.0)
    look(queue, sample(0.0, WALL, (5, 5), (0, 0), arriving=100.0))
    assert queue.last(0, 0, 0.0) == Standing(111, 11.0)


def test_due_retries_go_first() -> None:
    queue = Waiting(10.0)
    look(queue, sample(0.0, WALL, (5, 5), (0, 0), due=20))
    assert queue.last(0, 0, 0.0) == Standing(31, 3.0)


def test_a_share_of_the_calls_for_retries_makes_fresh_ones_wait_longer() -> None:
    queue = Waiting(10.0)
    for second in range(61):
        heads = (4 * second, 4 * second)
        look(queue, sample(float(second), WALL + 1000 * second, (1000, 1000), heads, 0, 2 * second))
    found = queue.last(0, 0, 60.0)
    assert found.position == pytest.approx(1 + 1520 / 0.8)  # a fifth of the calls until then is for retries
    assert found.eta_s == pytest.approx(1520 / 8, rel=0.02)


def test_time_since_the_sample_is_waited_already() -> None:
    queue = Waiting(10.0)
    look(queue, sample(0.0, WALL, (50, 50), (0, 0)))
    assert queue.last(0, 0, 4.0) == Standing(61, 6.0)


@pytest.mark.parametrize("reason", [BREAKER_OPEN, NO_WORKER])
def test_a_lane_that_rests_has_a_place_and_no_time(reason: str) -> None:
    queue = Waiting(10.0)
    look(queue, sample(0.0, WALL, (5, 5), (0, 0), paused=reason))
    assert queue.last(0, 0, 1.0) == Standing(11, None, reason)
    assert queue.of((0,), 0, WALL, 1.0, WALL + 1000).reason == reason
    assert queue.drain_s(1.0) is None


def test_nobody_can_tell_before_kafka_was_asked_or_long_after() -> None:
    queue = Waiting(10.0)
    nothing = Standing(None, None, UNKNOWN)
    assert queue.last(0, 0, 0.0) == queue.of((0,), 0, WALL, 0.0, WALL) == nothing
    look(queue, sample(0.0, WALL, (5,), (0,)))
    assert queue.last(0, 0, STALE_S + 1) == queue.of((0,), 0, WALL, STALE_S + 1, WALL) == nothing
    assert queue.backlog(STALE_S + 1) is None
    assert queue.of((0,), 7, WALL, 0.0, WALL) == nothing


def test_an_idle_lane_answers_with_its_limit() -> None:
    queue = Waiting(2.0)
    for second in range(100):
        look(queue, sample(float(second), WALL + second * 1000, (second // 30,), (second // 30,)))
    assert queue.pace.rate == 2.0
    assert queue.last(0, 0, 99.0) == Standing(1, 0.0)


def test_the_pace_is_measured_while_there_is_work_and_forgets_what_is_over_a_minute_old() -> None:
    pace = Pace(10.0)
    for second in range(120):
        pace.observe(float(second), 3 * second, 0, busy=True)
    assert pace.rate == pytest.approx(3.0, rel=0.08)
    assert pace.measured_s == 60.0
    assert pace.fresh_share is None
    pace.observe(120.0, 360, 0, busy=False)
    assert pace.rate == 10.0
    pace.observe(121.0, 0, 0, busy=True)  # another topic
    assert pace.rate == 10.0


def test_what_joins_is_told_as_a_rule_and_not_by_the_burst_that_a_queue_began_with() -> None:
    arrivals, joined = Arrivals(), 0
    for second in range(61):
        arrivals.observe(float(second), (joined, 0.0))
        if second >= 3 * STRETCH_S:
            assert arrivals.rates == [pytest.approx(40.0, abs=1), 0.0]
        joined += 2000 if second == 2 else 40
    for second in range(61, 61 + round(WINDOW_S / 2 + STRETCH_S)):
        arrivals.observe(float(second), (joined, 0.0))
    assert arrivals.rates == [0.0, 0.0]  # they have stopped for more than half of a minute


def test_partitions_are_served_in_turn() -> None:
    assert before([10, 10], 0, 0) == 0.5
    assert before([10, 10], 0, 5) == 10.5
    assert before([100, 3], 0, 50) == 53
    assert before([100, 100], 1, 3) == 6.5


def test_a_partition_that_gets_more_meanwhile_does_not_run_dry() -> None:
    assert before([100, 40], 0, 100) == 140
    assert before([100, 40], 0, 100, 0.25) == pytest.approx(100 + 40 + 0.25 * 186.67, abs=0.5)
    assert before([100, 40], 0, 100, 0.5) == 200.5


def test_history_is_bounded_and_tells_when_an_offset_was_reached() -> None:
    history = History()
    for second in range(20_000):
        history.add(second * 1000, (float(second), second // 2))
    assert len(history._points) <= POINTS
    for second in (100, 5_000, 12_345, 19_999):
        assert history.offset(0, second * 1000, None, (30_000_000, 20_000)) == pytest.approx(second, abs=1)
    assert history.offset(0, 25_000_000, None, (30_000_000, 29_998.0)) == pytest.approx(25_000, abs=2)


def test_history_keeps_the_moment_before_a_burst() -> None:
    history = History()
    for second in range(1000):
        history.add(second * 1000, (5.0,))
    history.add(1_000_000, (905.0,))
    assert history.offset(0, 500_000, None, (2_000_000, 905)) == 5.0
    assert history.offset(0, 999_500, None, (2_000_000, 905)) == pytest.approx(455.0)


def test_without_history_the_oldest_that_waits_is_the_other_end() -> None:
    history = History()
    history.add(10_000, (100.0,))
    assert history.offset(0, 5_000, (0, 0), (20_000, 100)) == 50.0
    assert History().offset(0, 5_000, (0, 0), (10_000, 100)) == 50.0
    assert History().offset(0, 5_000, None, (10_000, 100)) == 100


def two_lines(first: int, second: int) -> Waiting:
    """A lane of two levels, four turns and one, with one partition each, and so many waiting in either."""
    queue = Waiting(10.0, Turns((0, 1), (4, 1)))
    lines = (Line((first,), (0,)), Line((second,), (0,)))
    look(queue, Sample(0.0, WALL, lines, Line((0,), (0,))))
    return queue


@pytest.mark.parametrize(("joining", "expected"), [(0, 1), (1, 2), (2, 3), (50, 3)])
def test_what_joined_another_line_this_moment_goes_before_by_its_weight(joining: int, expected: int) -> None:
    """One reckoning is used for 50 ms, by all lines, but not where it tells no more what waits."""
    queue = two_lines(0, 0)
    assert queue.last(1, 0, 0.0).position == 1
    for _ in range(joining):
        queue.joined(0, 0, WALL)
    assert queue.last(1, 0, 0.02).position == expected


def test_what_joins_a_line_is_counted_though_another_one_has_just_been_asked_about() -> None:
    queue = two_lines(100, 0)
    for number in range(5):
        assert queue.last(0, 0, 0.0).position == 101 + number
        queue.joined(0, 0, WALL)
        assert queue.last(1, 0, 0.001).position == 3
    assert queue.last(0, 0, 0.001).position == 106
