"""``kifiya topics`` reads its settings from the environment and names the variable that is wrong."""

from __future__ import annotations

import pytest

from ops.cli import declared
from ops.local.state import Running
from tests.unit.ops.cli.run import CLOSED, complaint, kifiya


@pytest.mark.parametrize("command", [("create", "--timeout", "1"), ("list",)])
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LANES": "{"}, "LANES is not JSON"),
        ({"LANES": '{"Fast": {}}'}, "lane 'Fast'"),
        ({"RETRY_TIERS": "5s,1s"}, "RETRY_TIERS must list at least one delay, shortest first"),
        ({"RETRY_TIERS": "soon"}, "retry tier 'soon'"),
        ({"COMMAND_PARTITIONS": "twelve"}, "COMMAND_PARTITIONS must be a whole number from 1 to 1024"),
        ({"LANE_PARTITIONS": "0"}, "LANE_PARTITIONS must be a whole number from 1 to 1024"),
    ],
)
def test_a_wrong_setting_is_named(command: tuple[str, ...], environment: dict[str, str], said: str) -> None:
    result = kifiya("topics", *command, KAFKA_BOOTSTRAP=CLOSED, **environment)
    assert complaint(result).startswith(said)


def test_the_embedded_broker_cannot_delete_and_is_not_asked_to() -> None:
    said = complaint(kifiya("topics", "trim", KAFKA_BOOTSTRAP=CLOSED, KAFKA_DIALECT="tansu"))
    assert "the embedded broker cannot delete records" in said


def test_topics_are_those_of_the_lanes_and_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANE_PARTITIONS", "3")
    monkeypatch.delenv("COMMAND_PARTITIONS", raising=False)
    found = {
        topic.name: topic.partitions
        for topic in declared.read_topics(Running(lanes='{"fast": {}}', retry_tiers="1s, 9m"), commands=5)
    }
    assert found["payments.commands"] == found["payments.dead-letter"] == 5
    assert found["payments.lane.fast.due"] == found["payments.retry.9m"] == 3
    assert "payments.retry.1m" not in found
