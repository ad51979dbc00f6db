"""Cases: what is wrong with one is named, and the same seed makes the same requests and the same schedule."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.chaos import case as cases
from ops.chaos.case import BadCase, Deed, Fault, parse, schedule
from ops.chaos.wishes import Wishes
from schemas import command, strict_json
from schemas.command import InvalidCommand

GOOD: dict[str, Any] = {"name": "a", "purpose": "b", "lanes": {"one": {"limit": 2}}}
MERCHANTS = ("acme", "globex")


def case_of(**changes: Any) -> cases.Case:
    return parse(json.dumps(GOOD | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": 1}, "colour: is no field"),
        ({"name": ""}, "name: must be text of the form"),
        ({"name": "../../x"}, "name: must be text of the form"),
        ({"name": 3}, "name: must be text of the form"),
        ({"purpose": ""}, "purpose: must say something"),
        ({"purpose": ["b"]}, "purpose: must be text"),
        ({"seed": "x"}, "seed: must be a whole number"),
        ({"seed": 1.0}, "seed: must be a whole number"),
        ({"seed": -1}, "seed: must be a whole number"),
        ({"duration_s": "60"}, "duration_s: must be seconds"),
        ({"duration_s": float("nan")}, "duration_s: must be seconds"),
        ({"stack": ["apache"]}, "stack: must be"),
        ({"workers": 5}, "workers: must be an object"),
        ({"workers": {"dispatch": "3"}}, "workers.dispatch: must be how many processes"),
        ({"workers": {"dispatch": 0}}, "workers.dispatch: must be how many processes, from 1 to 16"),
        ({"workers": {"dispatch": -1}}, "workers.dispatch: must be how many"),
        ({"workers": {"dispatch": 10**9}}, "workers.dispatch: must be how many"),
        ({"workers": {"dispatch": True}}, "workers.dispatch: must be how many"),
        ({"settings": {"MAX_ATTEMPTS": 3}}, "settings.MAX_ATTEMPTS: must be text"),
        ({"settings": []}, "settings: must be an object"),
        ({"workload": {"http": "4"}}, "workload.http: must be times a second"),
        ({"workload": {"http": 10**9}}, "workload.http: must be times a second"),
        ({"workload": {"bad": 2}}, "workload.bad: must be a share"),
        ({"workload": {"methods": {}}}, "workload.methods: must be an object with something in it"),
        ({"workload": {"methods": {"pm_x": 0}}}, "workload.methods.pm_x: must be a weight"),
        ({"kafka_nodes": 3.0}, "kafka_nodes: must be 1 or 3"),
        ({"kafka_nodes": True}, "kafka_nodes: must be 1 or 3"),
        ({"accepts_within_s": "5"}, "accepts_within_s: must be seconds"),
        ({"accepts_within_s": None}, "accepts_within_s: must be seconds"),
        ({"accepts_within_s": 5}, "accepts_within_s: nothing is asked over HTTP"),
        ({"faults": [{"do": "kill", "what": ["redis"], "at_s": 1}]}, "faults.0.what: must be text"),
        ({"faults": [{"do": "kill", "at_s": 1}]}, "faults.0.what: is missing"),
        ({"faults": [{"do": "stall", "what": "redis", "of": 3, "at_s": 1}]}, "faults.0.of: must be text"),
        ({"faults": [{"do": "kill", "what": "sink", "at_s": True}]}, "faults.0: at_s and for_s are seconds"),
        ({"faults": [{"do": "kill", "what": "sink", "at_s": 1, "for_s": None}]}, "faults.0: at_s and for_s are sec"),
        ({"faults": [{"do": "kill", "what": "sink", "every_s": ["1", 2]}]}, "faults.0.every_s: must be two numbers"),
        ({"duration_s": 3600, "faults": [{"do": "kill", "what": "sink", "every_s": [1e-9, 1e-9]}]}, "1000 are"),
        ({"duration_s": 0}, "duration_s"),
        ({"stack": "moon"}, "stack: must be"),
        ({"lanes": {"One": {}}}, "lanes: lane 'One'"),
        ({"workload": {"htpp": 1}}, "workload.htpp: is no field"),
        ({"workload": 3}, "workload: must be an object"),
        ({"workers": {"cook": 2}}, "workers: cook is no role"),
        ({"faults": {}}, "faults: must be a list"),
        ({"faults": [3]}, "faults.0: must be an object"),
        ({"faults": [{"do": "melt"}]}, "faults.0.do: must be one of kill"),
        ({"faults": [{"do": "kill", "what": "sink"}]}, "faults.0: say at_s or every_s"),
        ({"faults": [{"do": "kill", "what": "sink", "at_s": 1, "every_s": [1, 2]}]}, "faults.0: say at_s or every_s"),
        ({"faults": [{"do": "kill", "what": "sink", "every_s": [2, 1]}]}, "faults.0.every_s: must be two numbers"),
        ({"faults": [{"do": "kill", "what": "sink", "at_s": -1}]}, "faults.0: at_s and for_s are seconds"),
        ({"faults": [{"do": "kill", "what": "dispatch-two", "at_s": 1}]}, "faults.0.what: kill takes one of"),
        ({"faults": [{"do": "flush", "what": "kafka", "at_s": 1}]}, "faults.0.what: flush takes one of redis"),
        ({"faults": [{"do": "stall", "what": "sink", "at_s": 1}]}, "faults.0.what: stall takes one of"),
        ({"faults": [{"do": "stall", "what": "provider", "at_s": 1}]}, "stall takes one of kafka, postgres, redis"),
        (
            {"faults": [{"do": "stall", "what": "redis", "of": "sink", "at_s": 1}]},
            "faults.0.of: must be one of dispatch-one",
        ),
        (
            {"faults": [{"do": "kill", "what": "redis", "of": "dispatch-one", "at_s": 1}]},
            "one worker has links of its own to redis and postgres",
        ),
        ({"faults": [{"do": "kill", "what": "sink", "every_s": [0.01, 0.02]}]}, "1000 are the most"),
        ({"stack": "embedded", "faults": [{"do": "kill", "what": "kafka", "at_s": 1}]}, "the embedded broker forgets"),
        ({"stack": "embedded", "faults": [{"do": "stall", "what": "kafka", "at_s": 1}]}, "the embedded broker forgets"),
        ({"stack": "embedded", "workload": {"transactions": 1}}, "the embedded broker knows none"),
        ({"kafka_nodes": 2}, "kafka_nodes: must be 1 or 3"),
        ({"kafka_nodes": 3, "stack": "embedded"}, "kafka_nodes: the embedded broker is one"),
        ({"faults": [{"do": "kill", "what": "kafka-2", "at_s": 1}]}, "faults.0.what: kill takes one of"),
        ({"kafka_nodes": 3, "faults": [{"do": "stop", "what": "kafka-4", "at_s": 1}]}, "kafka-1, kafka-2, kafka-3, p"),
        ({"at_failpoints": "melt"}, "at_failpoints: must be"),
        ({"at_failpoints": "kill", "faults": [{"do": "kill", "what": "sink", "at_s": 1}]}, "faults: there are none"),
        ({"accepts_within_s": -1}, "accepts_within_s: must be seconds"),
        ({"faults": [{"do": "failover", "what": "kafka", "at_s": 1}]}, "faults.0.what: failover takes one of redis"),
        ({"faults": [{"do": "clock", "what": "kafka", "at_s": 1, "ms": 5}]}, "faults.0.what: clock takes one of del"),
        ({"faults": [{"do": "clock", "what": "redis", "at_s": 1}]}, "faults.0.ms: a clock jumps by 1 to 3600000 ms"),
        ({"faults": [{"do": "clock", "what": "redis", "at_s": 1, "ms": -3600001}]}, "faults.0.ms: a clock jumps by"),
        ({"faults": [{"do": "clock", "what": "redis", "at_s": 1, "ms": 0.5}]}, "faults.0.ms: must be a whole number"),
        ({"faults": [{"do": "latency", "what": "redis", "at_s": 1, "ms": -5}]}, "faults.0.ms: only a clock goes back"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_case_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadCase) as told:
        case_of(**changes)
    assert says in str(told.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_object_is_no_case(text: str) -> None:
    with pytest.raises(BadCase):
        parse(text)


@pytest.mark.parametrize("name", cases.names())
def test_the_cases_that_come_along_are_good_and_named_like_their_files(name: str) -> None:
    found = cases.load(name)
    assert found.name == name
    assert schedule(found) or found.at_failpoints


def test_a_node_of_kafka_is_a_target_of_its_own_and_one_of_all() -> None:
    faults = [{"do": do, "what": "kafka-2", "at_s": 1} for do in ("kill", "stop", "stall", "drop-answers")]
    case = case_of(kafka_nodes=3, faults=[*faults, {"do": "kill", "what": "kafka", "at_s": 1}])
    assert case.nodes == ["kafka-1", "kafka-2", "kafka-3"]
    assert case_of().nodes == []
    assert [cases.aims_at(what, "kafka-2") for what in ("kafka", "kafka-2", "kafka-1")] == [True, True, False]


@pytest.mark.parametrize(
    ("what", "name", "expected"),
    [
        ("dispatch", "dispatch-one", True),
        ("dispatch-one", "dispatch-one#2", True),
        ("dispatch-two", "dispatch-one", False),
        ("ingress", "ingress", True),
        ("ingress", "ingress#2", True),
        ("sink", "intake", False),
        ("dispatch-wide", "dispatch-wide-2", False),
        ("dispatch-wide-2", "dispatch-wide-2#3", True),
        ("dispatch", "dispatch-wide-2#3", True),
        ("redis", "redis", True),
    ],
)
def test_a_role_is_all_its_processes_and_dispatch_all_lanes(what: str, name: str, expected: bool) -> None:
    assert cases.aims_at(what, name) is expected


def test_a_file_that_is_no_text_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "moon.json").write_bytes(b"\xff")
    with pytest.raises(BadCase, match=r"moon\.json: is not text"):
        cases.load(str(tmp_path / "moon.json"))


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(BadCase, match="purpose: is missing"):
        parse('{"name": "a"}')


def test_an_unknown_case_is_told_with_those_there_are() -> None:
    with pytest.raises(BadCase, match=r"moon: there is no such case; there are .*roles"):
        cases.load("moon")


def test_the_schedule_is_in_order_ends_with_the_load_and_follows_from_the_seed() -> None:
    faults = [
        {"do": "kill", "what": "sink", "every_s": [2, 5], "for_s": 1},
        {"do": "stop", "what": "intake", "at_s": [9, 3], "for_s": 2},
    ]
    case = case_of(duration_s=60, faults=faults)
    due = schedule(case)
    assert [each.at_s for each in due] == sorted(each.at_s for each in due)
    kills = [each.at_s for each in due if each.fault.do is Deed.KILL]
    assert 60 / 6 - 1 <= len(kills) <= 60 / 3 + 1
    assert all(3 <= late - early <= 6 for early, late in itertools.pairwise(kills))
    assert kills[-1] < 60
    assert [each.at_s for each in due if each.fault.do is Deed.STOP] == [3, 9]
    assert schedule(case) == due
    assert schedule(replace(case, seed=2)) != due
    assert Fault(do=Deed.KILL, what="sink").kind == "kill sink"


def test_the_same_seed_asks_for_the_same_and_each_kind_of_request_is_what_it_says() -> None:
    case = case_of(workload={"repeats": 0.1, "conflicts": 0.1, "cancels": 0.1, "bad": 0.2, "methods": {"pm_x": 1}})
    one, two = (Wishes(case, "http", MERCHANTS) for _ in range(2))
    found = [one.next(raw=True) for _ in range(2000)]
    assert found == [two.next(raw=True) for _ in range(2000)]
    assert found[:50] != [Wishes(case, "kafka", MERCHANTS).next(raw=True) for _ in range(50)]
    good, bodies = 0, dict[str, set[str]]()
    for wish in found:
        try:
            fields = strict_json.loads(wish.record())
            said = command.from_json(fields, lanes=frozenset(case.lanes), accepted_at_ms=1)
        except (InvalidCommand, strict_json.InvalidJson):
            assert wish.bad, wish
            continue
        good += 1
        assert not wish.bad
        assert said.payment_id == wish.payment_id
        if not wish.cancel:
            assert (said.amount_minor, said.currency) == (wish.amount_minor, wish.currency)
            bodies.setdefault(wish.payment_id, set()).add(wish.body)
    assert 300 < 2000 - good < 500
    assert sum(1 for each in bodies.values() if len(each) > 1) > 100
    assert sum(1 for wish in found if wish.cancel) > 100
