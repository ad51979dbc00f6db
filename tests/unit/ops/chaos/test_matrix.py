"""The matrix takes every role through all of its points, however many processes share them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import pytest

from ops.chaos import matrix as matrices
from ops.chaos.actors import Role, supervise
from ops.chaos.history import Writer
from ops.chaos.matrix import ACTIONS, Life, Matrix, lives, shared
from ops.chaos.points import POINTS, ROLES
from ops.chaos.rig import Rig
from ops.failpoints import Failpoint

PLACE = Failpoint("matrix.place")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("slots", [1, 3, 4, 50])
def test_each_point_is_dealt_out_once(role: str, slots: int) -> None:
    dealt = shared(role, slots)
    assert len(dealt) == slots
    assert sorted(point.name for part in dealt for point in part) == sorted(
        point.name for point in POINTS if point.role == role
    )


def test_only_some_are_dealt_out_where_only_some_are_wanted() -> None:
    [part] = shared("sink", 1, lambda point: point.name.startswith("agent."))
    assert [point.label for point in part] == ["sink:agent.before-ack", "sink:agent.after-ack"]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_life_arms_its_point_and_knows_what_the_log_will_say(action: str) -> None:
    todo = lives([point for point in POINTS if point.role == "dispatch"], action)
    labels = [life.label for life in todo]
    at = labels.index("dispatch.after-interrupted-told")
    assert labels[at - 1] == "before dispatch.after-interrupted-told"
    assert todo[at - 1].mark == "failpoint dispatch.after-intent-told: "
    assert todo[at].settings["FAILPOINTS"] == f"dispatch.after-interrupted-told={ACTIONS[action]}@1"
    assert all(life.mark is not None for life in todo)
    for life in todo:
        PLACE.arm(life.settings["FAILPOINTS"].partition("=")[2])
    PLACE.disarm()


def test_a_life_that_only_brings_something_about_has_no_mark() -> None:
    [before, armed] = lives([point for point in POINTS if point.name == "relay.after-publish"], "kill")
    assert before.mark is None
    assert "FAILPOINTS" not in before.settings
    assert armed.settings == {"FAILPOINTS": "relay.after-publish=kill@1"}


async def test_lives_that_end_at_once_are_seen_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second has ended before anybody looks for it; and a mark of one life is none of another's."""
    monkeypatch.setattr(matrices, "AFTER_S", 0.5)
    monkeypatch.setattr(matrices, "HIT_S", 4.0)
    says = "import os; print('failpoint {}: {}'.format(*os.environ.get('FAILPOINTS', 'none=').split('=')))"
    stays = "import time; time.sleep(float(os.environ.get('STAYS_S', '0')))"
    role = Role("delay", [sys.executable, "-u", "-c", f"{says}; {stays}"], "http://127.0.0.1:9", {}, tmp_path / "log")
    todo = [
        Life({"FAILPOINTS": "a.one=raise@1"}, "failpoint a.one: ", "one"),
        Life({"FAILPOINTS": "a.two=raise@1"}, "failpoint a.two: ", "two"),
        Life({"FAILPOINTS": "none=", "STAYS_S": "60"}, "failpoint a.two: ", "not again"),
        Life({"FAILPOINTS": "a.four=raise@1"}, "failpoint a.four: ", "four"),
    ]
    matrix = Matrix(cast("Rig", None), "raise")
    role.start()
    looking = asyncio.create_task(supervise([role]))
    try:
        with Writer(tmp_path / "faults.jsonl", "matrix") as writer:
            await matrix._one(role, todo, writer)
    finally:
        looking.cancel()
        await role.stop()
    assert matrix.hit == ["one", "two", "four"]
    assert matrix.missed == ["not again"]
