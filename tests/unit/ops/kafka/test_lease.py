"""The lease, over a clock that the test turns."""

from __future__ import annotations

from ops.kafka.lease import Lease


def test_it_holds_from_the_question_not_from_the_answer() -> None:
    now = 100.0
    lease = Lease(15.0, lambda: now)
    assert not lease.holds()
    lease.renewed(90.0)
    assert lease.holds()
    now = 105.0
    assert not lease.holds()


def test_an_old_answer_does_not_shorten_it() -> None:
    now = 110.0
    lease = Lease(15.0, lambda: now)
    lease.renewed(100.0)
    lease.renewed(90.0)
    assert lease.holds()


def test_a_worker_that_was_stopped_knows_at_once() -> None:
    now = 0.0
    lease = Lease(6.0, lambda: now)
    for now in range(10):
        lease.renewed(float(now))
        assert lease.holds()
    now = 9.0 + 60.0
    assert not lease.holds()
