"""What of a run's dumps is computed: when the ingress may have had no memory, and where moved records are at home."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ops.chaos.checker import check
from ops.chaos.collect import BLIND_AFTER_NS, UNWRITTEN_AFTER_NS, _Topics, blind, skews
from ops.chaos.evidence import Blind, Skew
from ops.chaos.history import Entry, Kind
from ops.chaos.wishes import CARDS
from schemas import topics
from tests.unit.ops.chaos.world import S, changed, healthy


def entry(kind: Kind, of: str, at_ns: int, deed: str, **data: Any) -> Entry:
    return Entry(kind=kind, at_ns=at_ns, actor="injector", of=of, data={"deed": deed, **data})


def record(topic: str, partition: int, offset: int, value: bytes, *headers: tuple[str, bytes]) -> SimpleNamespace:
    return SimpleNamespace(topic=topic, partition=partition, offset=offset, value=value, key=None, headers=headers)


def attacked(deed: str, **data: Any) -> Blind:
    return blind([entry(Kind.FAULT, "1", 5, deed, **data), entry(Kind.HEAL, "1", 9, deed, **data)])


@pytest.mark.parametrize(
    ("deeds", "lost", "deaf", "unwritten"),
    [
        (["kill redis", "failover redis"], True, True, False),
        (["flush redis"], True, False, False),
        (["stop redis", "reset redis", "stall redis", "drop-answers redis", "latency redis"], False, True, False),
        (["kill ingress", "stop ingress", "term ingress"], False, True, False),
        (["kill postgres", "stall postgres", "stop sink", "kill intake", "drop-answers kafka"], False, False, True),
        (["clock redis", "clock ingress", "script-flush redis", "kill dispatch", "kill delay", "reset provider"],
         False, False, False),
    ],
)  # fmt: skip
def test_what_is_attacked_keeps_a_key_from_the_ingress_in_its_own_way(
    deeds: list[str], *, lost: bool, deaf: bool, unwritten: bool
) -> None:
    for deed in deeds:
        found = attacked(deed)
        assert (found.lost, found.deaf) == (
            [(5, 9 + BLIND_AFTER_NS)] if lost else [], [(5, 9 + BLIND_AFTER_NS)] if deaf else [],
        ), deed  # fmt: skip
        assert found.unwritten == ([(5, 9 + UNWRITTEN_AFTER_NS)] if unwritten else []), deed


def test_spans_end_with_their_own_heal() -> None:
    faults = [
        entry(Kind.FAULT, "1", 5, "stop redis"), entry(Kind.FAULT, "2", 6, "kill kafka"),
        entry(Kind.HEAL, "1", 9, "stop redis"), entry(Kind.HEAL, "2", 10, "kill kafka"),
    ]  # fmt: skip
    assert blind(faults) == Blind([], [(5, 9 + BLIND_AFTER_NS)], [(6, 10 + UNWRITTEN_AFTER_NS)])


def test_a_skew_is_a_dispatchs_clock_from_its_jump_until_it_is_set_right() -> None:
    faults = [
        entry(Kind.FAULT, "1", 5, "clock dispatch", ms=-150, on="dispatch-a#2"),
        entry(Kind.FAULT, "2", 6, "clock redis", ms=7, on="redis"),
        entry(Kind.FAULT, "3", 6, "kill dispatch", ms=0, on="dispatch-a"),
        entry(Kind.HEAL, "2", 7, "clock redis", done=True),
        entry(Kind.HEAL, "1", 9, "clock dispatch", done=True),
        entry(Kind.HEAL, "3", 9, "kill dispatch", done=True),
    ]  # fmt: skip
    assert skews(faults) == [Skew(5, 9, -150_000_000)]


@pytest.mark.parametrize("on", ["intake", "ingress", "ingress#2", "delay", "sink", "redis"])
def test_a_clock_that_tells_no_intent_and_no_end_excuses_none(on: str) -> None:
    """p0's intent is told 50 ms after its call, at which moment this clock was ahead by that much."""
    deed = f"clock {on.partition('#')[0]}"
    found = [
        [entry(Kind.FAULT, "1", 0, deed, ms=50, on=of), entry(Kind.HEAL, "1", 2 * S, deed, done=True)]
        for of in (on, "dispatch-a")
    ]
    run = healthy()
    changed(run, "p0", 2, at_ms=run.events[1].at_ms + 50)
    run.skews = skews(found[0])
    assert {each.promise for each in check(run.evidence())} == {"intended-first"}
    run.skews = skews(found[1])
    assert check(run.evidence()) == []


def test_a_jump_that_was_never_made_excuses_nothing() -> None:
    faults = [
        entry(Kind.FAULT, "1", 5, "clock dispatch", ms=-150, on="dispatch-a"),
        entry(Kind.HEAL, "1", 5, "clock dispatch", done=False),
    ]
    assert skews(faults) == []


def test_a_moved_record_is_at_home_where_its_first_copy_is() -> None:
    found = _Topics()
    for offset in (7, 8):
        found.add(record(topics.COMMANDS, 3, offset, b"{}", ("rehomed-from", b"5/41")))
    assert found.moved == {(topics.COMMANDS, 5, 41): (topics.COMMANDS, 3, 7)}


def test_a_card_number_is_found_everywhere_but_in_what_a_merchant_sent() -> None:
    found = _Topics()
    planted = f"... {CARDS[0]} ...".encode()
    found.add(record(topics.COMMANDS, 0, 1, planted))
    assert found.leaks == []
    found.add(record(topics.DEAD_LETTER, 0, 1, planted))
    found.add(record(topics.lane_topic("a"), 0, 1, planted))
    assert found.leaks == [topics.DEAD_LETTER, topics.lane_topic("a")]
