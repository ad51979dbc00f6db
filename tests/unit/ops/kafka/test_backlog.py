"""Which group reads which work: nothing that is declared for work is read by nobody, or by two."""

from __future__ import annotations

from ops.kafka import backlog
from schemas import topics


def test_every_work_topic_is_read_by_exactly_one_group() -> None:
    """What is missing here is neither counted by ``kifiya status`` nor ever trimmed."""
    lanes = ["a", "b"]
    read = [name for names in backlog.groups(lanes, topics.DEFAULT_TIERS).values() for name in names]
    declared = {topic.name for topic in topics.declare(lanes) if topic.config["cleanup.policy"] != "compact"}
    assert sorted(read) == sorted(declared)
