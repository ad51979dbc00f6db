"""Health is progress: what counts as stalled, and how the drain time is told."""

from __future__ import annotations

import math

import pytest

from ops.kafka.progress import Progress


def run(readings: list[tuple[float, int, int]]) -> Progress:
    """A progress after these readings of (moment, lag, offsets committed)."""
    now = [0.0]
    progress = Progress(lambda: now[0], stalled_after_s=60)
    for moment, lag, done in readings:
        now[0] = moment
        progress.read({"topic": lag}, done)
    return progress


@pytest.mark.parametrize(
    ("readings", "stalled"),
    [
        ([(0, 0, 0), (300, 0, 0)], False),
        ([(0, 9, 5), (50, 9, 5)], False),
        ([(0, 9, 5), (61, 9, 5)], True),
        ([(0, 9, 5), (50, 9, 6), (100, 9, 6)], False),
        ([(0, 0, 5), (200, 9, 5), (230, 9, 5)], True),
        ([(0, 9, 500), (61, 9, 5)], False),
    ],
    ids=["idle", "slow", "stuck", "moving", "backlog came and nothing moved", "partitions went elsewhere"],
)
def test_stalled_means_a_backlog_and_no_offset_moved_for_long(
    readings: list[tuple[float, int, int]], *, stalled: bool
) -> None:
    assert run(readings).stalled is stalled


def test_the_drain_time_is_the_backlog_over_the_measured_rate() -> None:
    assert run([(0, 100, 0), (10, 80, 20)]).drain_s == pytest.approx(40)
    assert run([(0, 0, 0)]).drain_s == 0
    assert math.isnan(run([(0, 100, 0), (10, 100, 0)]).drain_s)
