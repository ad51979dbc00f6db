"""Every topic is declared once, with a name Kafka takes, and no work is ever lost to time."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from schemas import registry, topics
from schemas.lanes import LANE_NAME, parse_lanes

LANES = ["simulator", "telebirr"]
DECLARED = topics.declare(LANES)
BY_NAME = {topic.name: topic for topic in DECLARED}
WORK = [
    topics.COMMANDS,
    *(name(lane) for lane in LANES for name in (topics.due_topic, topics.cancel_topic)),
    *(name for lane in LANES for name in topics.queue_topics(lane)),
    *(topics.retry_topic(tier) for tier in topics.DEFAULT_TIERS),
]
KAFKA_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}", re.ASCII)


def test_all_topics_are_there_once() -> None:
    names = [topic.name for topic in DECLARED]
    assert len(names) == len(set(names))
    assert set(names) == {
        *WORK,
        topics.EVENTS,
        topics.RESULTS,
        topics.DEAD_LETTER,
        topics.changelog_topic(topics.INTAKE_APP, topics.SEEN_TABLE),
        *(topics.changelog_topic(topics.dispatch_app(lane), topics.LEDGER_TABLE) for lane in LANES),
        *(topics.limiter_topic(lane) for lane in LANES),
    }


@pytest.mark.parametrize("name", WORK)
def test_work_never_expires_by_time_or_size(name: str) -> None:
    config = BY_NAME[name].config
    assert config["cleanup.policy"] == "delete"
    assert config["retention.ms"] == "-1"
    assert "retention.bytes" not in config


@pytest.mark.parametrize("topic", [topic for topic in DECLARED if not topic.value], ids=lambda topic: topic.name)
def test_a_changelog_is_compacted_and_never_deleted(topic: topics.Topic) -> None:
    assert topic.config["cleanup.policy"] == "compact"
    assert int(topic.config["min.compaction.lag.ms"]) >= 7 * 86_400_000
    assert "retention.ms" not in topic.config


@pytest.mark.parametrize("lane", LANES)
def test_the_authority_over_permits_has_one_order_and_its_last_words_are_never_deleted(lane: str) -> None:
    topic = BY_NAME[topics.limiter_topic(lane)]
    assert topic.partitions == 1
    assert topic.config["cleanup.policy"] == "compact"
    assert "retention.ms" not in topic.config


def test_what_people_read_is_kept_for_thirty_days_and_results_for_ever() -> None:
    for name in (topics.EVENTS, topics.DEAD_LETTER):
        assert BY_NAME[name].config["retention.ms"] == str(30 * 86_400_000)
    assert BY_NAME[topics.RESULTS].config["cleanup.policy"] == "compact"
    assert "retention.ms" not in BY_NAME[topics.RESULTS].config


@pytest.mark.parametrize("topic", DECLARED, ids=lambda topic: topic.name)
def test_a_topic_says_what_it_is_for_and_takes_our_batches(topic: topics.Topic) -> None:
    assert topic.purpose
    assert topic.value == "" or registry.latest(topic.value)
    assert int(topic.config["max.message.bytes"]) >= 256 * 1024
    known = {"cleanup.policy", "retention.ms", "min.compaction.lag.ms", "segment.ms", "max.message.bytes"}
    assert set(topic.config) <= known
    assert all(isinstance(value, str) for value in topic.config.values())


def test_a_payment_meets_the_same_partition_number_in_all_topics_of_its_lane() -> None:
    found = topics.declare(["a"], command_partitions=5, lane_partitions=3)
    counts = {topic.name: topic.partitions for topic in found}
    ours = [
        *topics.queue_topics("a"),
        topics.due_topic("a"),
        topics.cancel_topic("a"),
        "kifiya.dispatch.a-ledger-changelog",
    ]
    assert {counts[name] for name in ours} == {3}
    assert counts[topics.COMMANDS] == counts["kifiya.intake-seen-changelog"] == 5


def test_all_names_are_kafkas_for_the_longest_lane_too() -> None:
    longest = "a" * 32
    assert LANE_NAME.fullmatch(longest)
    names = [topic.name for topic in topics.declare([longest, "a"])]
    names += [topics.dispatch_app(longest), topics.INTAKE_APP, topics.SINK_APP, topics.DELAY_GROUP]
    assert [name for name in names if not KAFKA_NAME.fullmatch(name)] == []
    # Kafka's metrics take "." and "_" for the same.
    assert not [name for name in names if "_" in name]


@pytest.mark.parametrize("lanes", [["a", "a-due"], ["due", "cancel"], ["a", "b", "a-b"], ["lane"], ["1s", "retry"]])
def test_no_two_lanes_share_a_topic(lanes: list[str]) -> None:
    names = [topic.name for topic in topics.declare(lanes)]
    assert len(names) == len(set(names))
    assert len({topics.dispatch_app(lane) for lane in lanes}) == len(lanes)


def test_what_is_declared_for_no_lane_is_what_all_lanes_share() -> None:
    assert {topic.name for topic in topics.declare([])} < {topic.name for topic in DECLARED}


@pytest.mark.parametrize(
    ("tier", "ms"), [("1s", 1000), ("15s", 15_000), ("1m", 60_000), ("5m", 300_000), ("2h", 7_200_000)]
)
def test_a_tier_is_a_number_and_a_unit(tier: str, ms: int) -> None:
    assert topics.tier_ms(tier) == ms


@pytest.mark.parametrize(
    "tier",
    ["", "s", "5", "0s", "-1s", "1.5s", "1 s", "1d", "1S", " 1s", "1s\n", "\u0663s", "\u00b2s", "9" * 5000 + "s"],
)
def test_no_other_tier_is_taken(tier: str) -> None:
    with pytest.raises(ValueError, match="retry tier"):
        topics.tier_ms(tier)


@pytest.mark.parametrize(
    ("topic", "tier"),
    [
        ("payments.retry.15s", "15s"),
        ("payments.retry.", None),
        ("payments.retry.soon", None),
        ("payments.lane.1s", None),
        ("15s", None),
    ],
)
def test_a_retry_topic_names_its_tier(topic: str, tier: str | None) -> None:
    assert topics.tier_of(topic) == tier


def test_the_default_tiers_rise() -> None:
    waits = [topics.tier_ms(tier) for tier in topics.DEFAULT_TIERS]
    assert waits == sorted(set(waits))


def test_the_default_lane_has_topics() -> None:
    lanes = parse_lanes('{"simulator": {}}')
    assert topics.lane_topic(next(iter(lanes))) in BY_NAME


def test_a_lanes_queues_are_named_in_the_order_of_service() -> None:
    name = topics.lane_topic("a")
    assert topics.queue_topics("a") == (
        name,
        *(f"{name}.l{level}" for level in (1, 2)),
        *(f"{name}.l3-{number}" for number in range(3)),
    )
    assert topics.queue_topic("a", 3, 2) == topics.queue_topics("a")[-1]
    with pytest.raises(IndexError):
        topics.queue_topic("a", len(topics.LEVELS))


def test_a_merchant_has_one_queue_of_each_level_and_merchants_are_spread_over_them() -> None:
    """The hash is for ever: with another one, a merchant's queued payments would stand in two lines."""
    assert [topics.queue_number(3, merchant) for merchant in ("shop", "acme", "\u00e9", "")] == [0, 2, 2, 0]
    assert {topics.queue_number(level, f"m{n}") for level in (0, 1, 2) for n in range(50)} == {0}
    spread = Counter(topics.queue_number(3, f"merchant-{n}") for n in range(4000))
    assert spread.keys() == set(range(3))
    assert max(spread.values()) < 1.2 * min(spread.values())
