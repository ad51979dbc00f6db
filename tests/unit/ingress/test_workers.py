"""Who of the workers lives, why a lane rests, and how far its workers are."""

from __future__ import annotations

import pytest

from ingress.waiting import BREAKER_OPEN, LIMITER_AWAY, NO_WORKER
from ingress.workers import Ward, Workers
from schemas import pulse
from schemas.pulse import Head, Pulse


@pytest.mark.parametrize(
    ("workers", "paused", "breaker"),
    [
        (Workers(redis=False), LIMITER_AWAY, "unknown"),
        (Workers(), NO_WORKER, "unknown"),
        (Workers((Pulse(1),)), None, "closed"),
        (Workers((Pulse(1, breaker_open=True),)), BREAKER_OPEN, "open"),
        (Workers((Pulse(1, breaker_open=True), Pulse(1))), None, "closed"),
        (Workers((Pulse(1, limiter=False),)), LIMITER_AWAY, "closed"),
        (Workers((Pulse(1, limiter=False), Pulse(1))), None, "closed"),
    ],
)
def test_a_lane_rests_where_none_of_its_workers_calls(workers: Workers, paused: str | None, breaker: str) -> None:
    assert (workers.paused, workers.breaker) == (paused, breaker)


def test_a_worker_whose_beat_stands_still_is_gone() -> None:
    now = 0.0
    ward = Ward("redis://127.0.0.1:9/0", ["a", "b"], clock=lambda: now)

    def hear(beat: int) -> int:
        return len(ward.hear({"a": {b"x": pulse.encode(Pulse(beat)), b"y": b"junk"}, "b": {}})["a"].pulses)

    assert hear(1) == 1
    now = pulse.GONE_S
    assert hear(1) == 1
    now += 0.1
    assert hear(1) == 0
    assert hear(2) == 1
    assert ward.hear({"a": {}, "b": {}}) == {"a": Workers(), "b": Workers()}


def test_the_furthest_word_counts() -> None:
    place = "lane", 3
    workers = Workers((Pulse(1, heads={place: Head(7, 1000)}), Pulse(1, heads={place: Head(9)}), Pulse(1)))
    assert (workers.head("lane", 3), workers.head("lane", 4)) == (9, 0)
    assert workers.oldest_ms("lane", 3, 7) == 1000
    assert workers.oldest_ms("lane", 3, 9) is None
    assert workers.oldest_ms("lane", 4, 0) is None


async def test_without_redis_the_limiter_is_away() -> None:
    ward = Ward("redis://127.0.0.1:9/0", ["a"])
    assert await ward.look() == {"a": Workers(redis=False)}
    await ward.close()


def test_what_a_merchant_has_waiting_is_the_most_that_any_process_of_intake_tells() -> None:
    words = [Pulse(1, ahead={"a": {"x": 5.0, "y": 1.0}}), Pulse(2, ahead={"a": {"x": 7.0}, "b": {"x": 9.0}})]
    assert Workers(tuple(words)).ahead("a") == {"x": 7.0, "y": 1.0}
    assert Workers(tuple(words)).ahead("c") == {}
