"""Only what its group has committed may be deleted, and never what others read."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from ops.kafka.trim import Extent, Trim, plan
from schemas import topics

LANE = TopicPartition(topics.lane_topic("fast"), 0)
COMMANDS = TopicPartition(topics.COMMANDS, 1)


@pytest.mark.parametrize(
    ("committed", "begins", "young", "before"),
    [
        ({LANE: 0}, {LANE: 0}, {}, {}),
        ({LANE: 7}, {LANE: 0}, {}, {LANE: 7}),
        ({LANE: 7}, {LANE: 7}, {}, {}),
        ({LANE: 7}, {}, {}, {LANE: 7}),
        ({COMMANDS: 7}, {COMMANDS: 2}, {COMMANDS: 5}, {COMMANDS: 5}),
        ({COMMANDS: 7}, {COMMANDS: 2}, {COMMANDS: 9}, {COMMANDS: 7}),
        ({COMMANDS: 7}, {COMMANDS: 2}, {COMMANDS: 2}, {}),
        *(({TopicPartition(name, 0): 9}, {}, {}, {}) for name in (topics.EVENTS, topics.RESULTS, topics.DEAD_LETTER)),
    ],
)
def test_records_go_below_the_committed_offset_only(
    committed: dict[TopicPartition, int],
    begins: dict[TopicPartition, int],
    young: dict[TopicPartition, int],
    before: dict[TopicPartition, int],
) -> None:
    assert plan(committed, begins, young) == before


def test_counts_are_told_by_topic() -> None:
    other = LANE._replace(partition=1)
    assert Trim({LANE: 7, other: 3, COMMANDS: 5}, {LANE: 2, COMMANDS: 4}).by_topic() == {
        topics.COMMANDS: 1,
        LANE.topic: 8,
    }
    assert Extent({0: 2, 1: 0}, {0: 7, 1: 0}).records == 5
