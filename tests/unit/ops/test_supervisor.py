"""The supervisor's clockwork: who died is started again, first soon, then later, and nobody else is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ops.local.child import Child
from ops.local.supervisor import LONGEST_WAIT_S, SOUND_AFTER_S, Supervisor, wait_s


async def _served() -> bool:
    return True


def child(name: str, code: str, log: Path) -> Child:
    return Child(name, [sys.executable, "-c", code], probe=_served, log=log, drop_rights=False)


@pytest.mark.parametrize(("falls", "expected"), [(1, 0.2), (2, 0.4), (3, 0.8), (6, 6.4), (7, 10.0), (1000, 10.0)])
def test_the_first_restart_comes_within_a_second_and_later_ones_back_off_to_ten(falls: int, expected: float) -> None:
    assert wait_s(falls) == pytest.approx(expected)
    assert wait_s(falls) <= LONGEST_WAIT_S


async def test_a_dead_role_is_started_again_after_its_pause_and_a_sound_one_is_left_alone(tmp_path: Path) -> None:
    now = [100.0]
    told: list[dict[str, int]] = []
    supervisor = Supervisor(lambda: told.append(supervisor.pids), lambda: now[0])
    weak = child("weak", "import time; time.sleep(60)", tmp_path / "a")
    sound = child("sound", "import time; time.sleep(60)", tmp_path / "b")
    supervisor.start(weak)
    supervisor.start(sound)
    try:
        before = supervisor.pids
        weak.kill()
        assert not supervisor.look()
        assert not supervisor.look(), "its pause is not over"
        assert set(supervisor.pids) == {"sound"}
        now[0] += wait_s(1)
        assert supervisor.look()
        after = supervisor.pids
        assert after["weak"] != before["weak"]
        assert after["sound"] == before["sound"]
    finally:
        await supervisor.stop()
    assert supervisor.pids == {}


async def test_pauses_grow_with_falls_in_a_row_and_shrink_after_a_sound_run(tmp_path: Path) -> None:
    now = [0.0]
    supervisor = Supervisor(clock=lambda: now[0])
    weak = child("weak", "import time; time.sleep(60)", tmp_path / "log")
    supervisor.start(weak)
    try:
        for falls in (1, 2, 3):
            weak.kill()
            supervisor.look()
            now[0] += wait_s(falls) - 0.01
            assert not supervisor.look()
            now[0] += 0.02
            assert supervisor.look()
        now[0] += SOUND_AFTER_S + 1
        supervisor.look()
        weak.kill()
        supervisor.look()
        now[0] += wait_s(1)
        assert supervisor.look()
    finally:
        await supervisor.stop()
