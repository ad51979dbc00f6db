"""Looks at every lane at once: how far its topics reach, how far dispatch is, and what intake has in hand.

Kafka tells the ends and what is committed; what the workers say goes beyond that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from ingress.retries import Tier
from ingress.sample import Line, Sample
from ingress.workers import Ward, Workers
from ops.kafka.clients import KafkaSettings, end_offsets
from ops.kafka.reading import partition_counts
from schemas import pulse, topics

ANSWER_S: Final = 4.0
"""How long Kafka may take for one look."""

Offsets = Mapping[TopicPartition, int]


class Lookout:
    """Looks while it is open. ``lanes``: the topics of fresh tasks of each lane, in the order of its lines."""

    def __init__(self, kafka: KafkaSettings, lanes: Mapping[str, tuple[str, ...]], ward: Ward) -> None:
        self.workers: dict[str, Workers] = {}
        """Dispatch of each lane, by lane."""
        self.intake = Workers()
        self._kafka = kafka
        self._lanes = dict(lanes)
        self._ward = ward
        self._parts: dict[str, list[TopicPartition]] = {}
        self._tiers: dict[str, str] = {}
        """By retry topic, its tier: all that are there, whatever the roles are set to use."""
        self._asking: AIOKafkaConsumer | None = None
        self._groups: AIOKafkaAdminClient | None = None
        self._ends: dict[TopicPartition, int] = {}
        self._reported: Offsets = {}
        self._routed: tuple[float, int] | None = None
        self._began: dict[str, dict[str, int]] = {}

    async def open(self) -> None:
        """Connect. Raises KafkaError, TimeoutError, KeyError: a topic is missing."""
        async with asyncio.timeout(ANSWER_S):
            counts = await partition_counts(self._kafka)
            names = [topics.COMMANDS]
            for lane, lines in self._lanes.items():
                names += [*lines, topics.due_topic(lane)]
            self._tiers = {name: tier for name in counts if (tier := topics.tier_of(name))}
            names += self._tiers
            self._parts = {name: [TopicPartition(name, number) for number in range(counts[name])] for name in names}
            self._asking = AIOKafkaConsumer(bootstrap_servers=self._kafka.bootstrap, enable_auto_commit=False)
            await self._asking.start()
            self._groups = AIOKafkaAdminClient(bootstrap_servers=self._kafka.bootstrap)
            await self._groups.start()

    async def close(self) -> None:
        """Close the connections to Kafka; the one to Redis stays until ``end``."""
        asking, groups = self._asking, self._groups
        self._asking = self._groups = None
        if asking is not None:
            await asking.stop()
        if groups is not None:
            await groups.close()

    async def end(self) -> None:
        """Close everything."""
        await self.close()
        await self._ward.close()

    async def look(self, mark: Callable[[], None] = lambda: None) -> dict[str, Sample]:
        """Every lane as it is now; ``mark`` is called as the ends are read. Raises KafkaError, TimeoutError."""
        async with asyncio.timeout(ANSWER_S):
            words = await self._ward.look()
            read = {topics.INTAKE_APP: [topics.COMMANDS], topics.DELAY_GROUP: list(self._tiers)}
            for lane, lines in self._lanes.items():
                read[topics.dispatch_app(lane)] = [*lines, topics.due_topic(lane)]
            found = await asyncio.gather(*(self._committed(group, names) for group, names in read.items()))
            at = time.monotonic() - pulse.BEAT_S / 2  # so old is what the workers say, on the average
            wall_ms = time.time_ns() // 1_000_000
            mark()
            await self._look_at_ends()
        done = {part: offset for offsets in found for part, offset in offsets.items()}
        self.workers = {lane: words[pulse.dispatch(lane)] for lane in self._lanes}
        self.intake = words[pulse.INTAKE]
        untold = sum(self._ends[part] - self._head(part, done, self.intake) for part in self._parts[topics.COMMANDS])
        arriving = max(0.0, untold - self._routed_since_the_beat(at))
        shares = self._shares("fresh", self._lanes)
        retried = self._shares("due", {lane: (topics.due_topic(lane),) for lane in self._lanes})
        waiting = {
            tier: sum(max(0, self._ends[part] - done.get(part, 0)) for part in self._parts[name])
            for name, tier in self._tiers.items()
        }
        return {
            lane: self._sample(lane, done, (at, wall_ms), arriving * shares[lane], _part(waiting, retried[lane]))
            for lane in self._lanes
        }

    def _routed_since_the_beat(self, at: float) -> float:
        """What intake has put into the lanes since it told how far it is: that is in their ends already."""
        routed = sum(self._ends[part] for lines in self._lanes.values() for line in lines for part in self._parts[line])
        (then, before), self._routed = self._routed or (at, routed), (at, routed)
        return (routed - before) / (at - then) * pulse.BEAT_S / 2 if at > then else 0.0

    def _head(self, part: TopicPartition, done: Offsets, workers: Workers) -> int:
        return min(self._ends[part], max(done.get(part, 0), workers.head(part.topic, part.partition)))

    def _shares(self, kind: str, lanes: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
        """Which part of what arrives is for which lane: since this process has begun; at first, the default's."""
        now = {lane: sum(self._ends[part] for line in lines for part in self._parts[line])
               for lane, lines in lanes.items()}  # fmt: skip
        began = self._began.setdefault(kind, now)
        came = {lane: max(0, now[lane] - began[lane]) for lane in now}
        came[next(iter(now))] += 1
        return {lane: count / sum(came.values()) for lane, count in came.items()}

    def _sample(
        self, lane: str, done: Offsets, at: tuple[float, int], arriving: float, tiers: tuple[Tier, ...]
    ) -> Sample:
        workers = self.workers[lane]
        found = self._line(topics.due_topic(lane), done, workers)
        due = Line(found.ends, found.heads)  # its oldest was accepted long before it joined
        lines = tuple(self._line(name, done, workers) for name in self._lanes[lane])
        return Sample(*at, lines, due, tiers, arriving, workers.paused)

    def _line(self, name: str, done: Offsets, workers: Workers) -> Line:
        parts = self._parts[name]
        heads = tuple(self._head(part, done, workers) for part in parts)
        oldest_ms = (
            workers.oldest_ms(name, part.partition, head) for part, head in zip(parts, heads, strict=True)
        )  # fmt: skip
        return Line(tuple(self._ends[part] for part in parts), heads, tuple(oldest_ms))

    async def _committed(self, group: str, names: list[str]) -> Offsets:
        assert self._groups is not None  # noqa: S101 - open() was called
        parts = [part for name in names for part in self._parts[name]]
        found = await self._groups.list_consumer_group_offsets(group, partitions=parts)
        return {part: max(0, told.offset) for part, told in found.items()}

    async def _look_at_ends(self) -> None:
        assert self._asking is not None  # noqa: S101 - open() was called
        reported = await self._asking.end_offsets([part for parts in self._parts.values() for part in parts])
        if self._kafka.dialect == "tansu":  # tells the end of its last batch wrongly: look where something has come
            changed = [part for part, end in reported.items() if end != self._reported.get(part, 0)]
            found = await end_offsets(self._kafka, changed)
            self._ends = {**dict.fromkeys(reported, 0), **self._ends, **found}
        else:
            self._ends = dict(reported)
        self._reported = reported


def _part(waiting: Mapping[str, int], share: float) -> tuple[Tier, ...]:
    """A lane's part of the retries that wait in each tier."""
    return tuple(Tier(topics.tier_ms(tier) / 1000, count * share) for tier, count in waiting.items() if count)
