"""The injector does what the schedule says to the right target, undoes it, and writes both down."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ops.chaos import case as cases
from ops.chaos import history
from ops.chaos.actors import Service
from ops.chaos.history import Entry, Kind
from ops.chaos.injector import Injector, turn_of
from ops.chaos.rig import Rig
from ops.local.child import StartError


@dataclass
class Process:
    """An actor that takes a while to come back; ``seen`` tells what befell all of them, in order."""

    name: str
    seen: list[str]
    pid: int | None = None
    revives: bool = True

    def kill(self) -> None:
        self.seen.append(f"kill {self.name}")

    async def revive(self) -> None:
        await asyncio.sleep(0.05)
        if not self.revives:
            raise StartError(f"{self.name} stays down")
        self.seen.append(f"back {self.name}")


@dataclass
class Target:
    """A rig in small."""

    case: cases.Case
    folder: Path
    processes: list[Process]
    seen: list[str] = field(default_factory=list)
    pair: Any = None

    @property
    def clocks(self) -> Any:
        return SimpleNamespace(jump=lambda name, ms: self.seen.append(f"clock {name} {ms}"))

    def actors(self, what: str) -> list[Process]:
        return [each for each in self.processes if cases.aims_at(what, each.name)]


def target_of(folder: Path, *faults: dict[str, Any], names: tuple[str, ...] = (), **changes: Any) -> Target:
    made = {"name": "a", "purpose": "b", "faults": list(faults), "lanes": {"one": {}, "two": {}}, **changes}
    found = Target(cases.parse(json.dumps(made)), folder, [])
    found.processes = [Process(name, found.seen) for name in names]
    return found


async def attacked(target: Target) -> tuple[Injector, list[Entry]]:
    injector = Injector(cast("Rig", target))
    async with asyncio.timeout(10):
        await injector.run()
    return injector, list(history.read([target.folder / "faults.jsonl"]))


NODES = ("kafka-1", "kafka-2", "kafka-3")


async def test_one_node_comes_back_before_another_falls_and_each_can_be_named(tmp_path: Path) -> None:
    faults = [{"do": "kill", "what": name, "at_s": number / 100} for number, name in enumerate(NODES)]
    target = target_of(tmp_path, *faults, names=NODES, kafka_nodes=3)
    injector, entries = await attacked(target)
    assert target.seen == [f"{did} {name}" for name in NODES for did in ("kill", "back")]
    assert injector.failed == []
    told = [entry.data["on"] for entry in entries if entry.kind is Kind.FAULT]
    assert told == list(NODES)


async def test_which_node_falls_is_the_seeds_and_told(tmp_path: Path) -> None:
    found: list[list[str]] = []
    for seed in (1, 1, 2, 3, 4):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        fault = {"do": "kill", "what": "kafka", "at_s": [0, 0.01, 0.02, 0.03]}
        target = target_of(folder, fault, names=NODES, kafka_nodes=3, seed=seed)
        _, entries = await attacked(target)
        found.append([entry.data["on"] for entry in entries if entry.kind is Kind.FAULT])
        assert [each.removeprefix("kill ") for each in target.seen if each.startswith("kill")] == found[-1]
    assert found[0] == found[1]
    assert len({tuple(each) for each in found}) > 2


@pytest.mark.parametrize(
    ("what", "other", "expected"),
    [("kafka", "kafka-2", True), ("dispatch-one", "dispatch-two", False), ("redis", "kafka-1", False)],
)
def test_faults_of_one_service_wait_for_one_another(what: str, other: str, expected: bool) -> None:
    assert (turn_of(what) == turn_of(other)) is expected


async def test_a_clock_jumps_at_one_process_and_is_set_right(tmp_path: Path) -> None:
    fault = {"do": "clock", "what": "dispatch", "at_s": 0, "for_s": 0.05, "ms": -150}
    target = target_of(tmp_path, fault, names=("dispatch-one", "dispatch-two", "intake"))
    _, entries = await attacked(target)
    on = entries[0].data["on"]
    assert on in {"dispatch-one", "dispatch-two"}
    assert target.seen == [f"clock {on} -150", f"clock {on} 0"]
    assert (entries[0].data["deed"], entries[0].data["ms"]) == ("clock dispatch", -150)
    assert [entry.kind for entry in entries] == [Kind.FAULT, Kind.HEAL]


async def test_a_clock_is_set_right_where_the_run_is_cut_short(tmp_path: Path) -> None:
    fault = {"do": "clock", "what": "intake", "at_s": 0, "for_s": 60, "ms": 150}
    target = target_of(tmp_path, fault, names=("intake",))
    running = asyncio.create_task(Injector(cast("Rig", target)).run())
    while not target.seen:
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    assert target.seen == ["clock intake 150", "clock intake 0"]


async def test_a_failover_serves_on_for_so_long_and_then_switches(tmp_path: Path) -> None:
    target = target_of(tmp_path, {"do": "failover", "what": "redis", "at_s": 0, "for_s": 0.1})

    async def cut() -> None:
        target.seen.append("cut")

    async def switch() -> None:
        target.seen.append("switch")

    target.pair = SimpleNamespace(cut=cut, switch=switch)
    injector, (fault, heal) = await attacked(target)
    assert target.seen == ["cut", "switch"]
    assert heal.at_ns - fault.at_ns >= 100_000_000
    assert injector.failed == []


async def test_what_cannot_be_done_or_does_not_come_back_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    faults = [
        {"do": "failover", "what": "redis", "at_s": 0},
        {"do": "kill", "what": "sink", "at_s": 0},
        {"do": "kill", "what": "delay", "at_s": 0},
        {"do": "kill", "what": "intake", "at_s": 0},
    ]
    target = target_of(tmp_path, *faults, names=("delay", "intake"))
    target.processes[0].revives = False
    injector, entries = await attacked(target)
    assert sorted(injector.failed) == [
        "failover redis: LookupError: redis: has no standby",
        "kill delay: StartError: delay stays down",
        "kill sink: LookupError: sink: nothing of that name runs",
    ]
    assert "back intake" in target.seen
    heals = {entry.data["deed"]: entry.data["done"] for entry in entries if entry.kind is Kind.HEAL}
    assert heals == {"failover redis": False, "kill sink": False, "kill delay": True, "kill intake": True}


async def test_a_service_that_is_slow_to_serve_is_not_started_twice() -> None:
    """Its first start did not serve in time, and runs still: it is waited for, not started beside itself."""

    class Slow:
        name = "kafka-1"
        pid: int | None = None
        starts = looks = 0

        async def restart(self) -> None:
            self.pid, self.starts = 7, self.starts + 1
            raise StartError("kafka-1 did not answer within 30 s")

        async def ready(self) -> None:
            self.looks += 1
            if self.looks == 1:
                raise StartError("nor now")

    slow = Slow()
    await Service(cast("Any", slow)).revive()
    assert (slow.starts, slow.looks) == (1, 2)
