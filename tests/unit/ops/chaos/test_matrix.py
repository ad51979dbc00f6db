"""The matrix takes every role through all of its points, however many processes share them."""

from __future__ import annotations

import pytest

from ops.chaos.matrix import ACTIONS, lives, shared
from ops.chaos.points import POINTS, ROLES
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
