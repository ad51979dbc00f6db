"""What a look at the lanes comes to, of what Kafka and the workers tell; both are told here."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka import TopicPartition

from ingress.lookout import Lookout
from ingress.retries import Tier
from ingress.workers import Ward, Workers
from ops.kafka.clients import KafkaSettings
from schemas import pulse, topics
from schemas.pulse import Head, Pulse

LANES = {lane: topics.queue_topics(lane)[:1] for lane in ("a", "b")}
DUE = {lane: topics.due_topic(lane) for lane in LANES}
RETRIES = {topics.retry_topic(tier): tier for tier in ("1s", "5m")}
NAMES = (topics.COMMANDS, *(line for lines in LANES.values() for line in lines), *DUE.values(), *RETRIES)


class Pulses(Ward):
    """The same workers of each hash."""

    def __init__(self, *workers: Pulse) -> None:
        super().__init__("redis://127.0.0.1:9/0", (pulse.INTAKE, *map(pulse.dispatch, LANES)))
        self._workers = Workers(workers)

    async def look(self) -> dict[str, Workers]:
        return dict.fromkeys(self._keys, self._workers)


class Told(Lookout):
    """A lookout that is told where partition 0 of each topic ends, and what is committed."""

    def __init__(self, *workers: Pulse) -> None:
        super().__init__(KafkaSettings("127.0.0.1:9"), LANES, Pulses(*workers))
        self._parts = {name: [TopicPartition(name, 0)] for name in NAMES}
        self._tiers = RETRIES
        self.ends: dict[str, int] = {}
        self.committed: dict[str, int] = {}

    async def _committed(self, group: str, names: list[str]) -> dict[TopicPartition, int]:
        del group
        return {TopicPartition(name, 0): self.committed.get(name, 0) for name in names}

    async def _look_at_ends(self) -> None:
        self._ends = {TopicPartition(name, 0): self.ends.get(name, 0) for name in NAMES}


async def test_what_waits_is_what_is_there_and_not_committed_nor_done() -> None:
    lookout = Told(Pulse(1, heads={("payments.lane.a", 0): Head(7, 5000), (DUE["a"], 0): Head(3, 4000)}))
    lookout.ends = {"payments.lane.a": 10, DUE["a"]: 8, topics.COMMANDS: 4}
    lookout.committed = {"payments.lane.a": 5, DUE["a"]: 6, topics.COMMANDS: 1}
    found = await lookout.look()
    [line] = found["a"].lines
    assert (line.ends, line.heads, line.oldest_ms) == ((10,), (7,), (5000,))
    assert (found["a"].due.backlog, found["a"].due.heads, found["a"].due.oldest_ms) == (2, (6,), ())
    assert (found["a"].arriving, found["b"].arriving, found["b"].lines[0].backlog) == (3.0, 0.0, 0)


async def test_what_waits_for_its_time_is_shared_among_lanes_as_their_retries_have_come() -> None:
    lookout = Told()
    lookout.ends = {topics.retry_topic("1s"): 10, topics.retry_topic("5m"): 40}
    lookout.committed = {topics.retry_topic("1s"): 10}
    found = await lookout.look()
    assert (found["a"].tiers, found["b"].tiers) == ((Tier(300.0, 40.0),), (Tier(300.0, 0.0),))
    lookout.ends |= {DUE["b"]: 3, "payments.lane.a": 99}
    found = await lookout.look()
    assert [found[lane].tiers[0].waiting for lane in LANES] == pytest.approx([10.0, 30.0])


async def test_a_lane_of_which_nobody_tells_rests() -> None:
    assert (await Told().look())["a"].paused is not None
    assert (await Told(Pulse(1)).look())["a"].paused is None


async def test_the_moment_of_a_look_is_the_one_at_which_the_ends_are_read() -> None:
    """What is accepted while the workers and the commits are asked is in the ends, and must not count once more."""
    lookout, order = Told(Pulse(1)), list[str]()

    async def slow_ends() -> None:
        order.append("ends")

    async def slow_commits(group: str, names: list[str]) -> dict[TopicPartition, int]:
        del group, names
        await asyncio.sleep(0.05)
        order.append("commits")
        return {}

    lookout._committed, lookout._look_at_ends = slow_commits, slow_ends  # type: ignore[method-assign]
    lookout._ends = dict.fromkeys((TopicPartition(name, 0) for name in NAMES), 0)
    began_ms = time.time_ns() // 1_000_000
    found = await lookout.look(lambda: order.append("mark"))
    assert order[-2:] == ["mark", "ends"]
    assert found["a"].wall_ms >= began_ms + 50


async def test_what_intake_has_routed_since_its_last_word_is_not_arriving_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It tells twice a second how far it is: at four hundred a second a hundred were counted twice."""
    lookout, now = Told(Pulse(1, heads={(topics.COMMANDS, 0): Head(300)})), 10.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lookout.ends = {topics.COMMANDS: 0, "payments.lane.a": 0}
    await lookout.look()
    now += 1.0
    lookout.ends = {topics.COMMANDS: 400, "payments.lane.a": 400}
    assert (await lookout.look())["a"].arriving == 0.0
    now += 1.0
    lookout.ends = {topics.COMMANDS: 900, "payments.lane.a": 400}
    assert (await lookout.look())["a"].arriving == 600.0
