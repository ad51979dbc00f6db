"""A broker and its coordinator in small: logs, acks, committed offsets, sessions, rebalances.

What a process has sent and the broker has not acked may be stored or not when the process dies. Of one producer the
records of a partition are stored in their order; between partitions and between producers there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from ops.chaos.sim.loop import Process, current, running, sleep, within
from ops.kafka.clients import PublishTimedOut, partition_for
from ops.kafka.message import Message

PUBLISH_S: Final = 10.0
SESSION_S: Final = 6.0
HEARTBEAT_S: Final = 1.0


@dataclass(slots=True)
class Stored:
    """A record in its partition; ``timestamp`` is the producer's, in epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: int


@dataclass(slots=True)
class Broker:
    """All topics; a topic has ``partitions`` partitions, or what ``counts`` says of it."""

    random: Random
    now_ms: Callable[[], int]
    partitions: int
    counts: dict[str, int] = field(default_factory=dict)
    logs: dict[tuple[str, int], list[Stored]] = field(default_factory=dict)
    away_until: float = 0.0
    _last: dict[tuple[Process | None, str, int], float] = field(default_factory=dict)
    _news: dict[tuple[str, int], asyncio.Event] = field(default_factory=dict)

    def log(self, topic: str, partition: int) -> list[Stored]:
        """One partition's records."""
        return self.logs.setdefault((topic, partition), [])

    def all_of(self, topic: str) -> list[Stored]:
        """A topic's records, partition by partition."""
        return [record for (name, _), log in sorted(self.logs.items()) if name == topic for record in log]

    def count(self, topic: str) -> int:
        """How many partitions a topic has."""
        return self.counts.get(topic, self.partitions)

    async def publish(self, messages: list[Message]) -> None:
        """Send; return when all are acked. Raises PublishTimedOut: each may be stored, now or later, or not."""
        if not messages:
            return
        acked: asyncio.Future[None] = running().create_future()
        missing = len(messages)

        def ack() -> None:
            nonlocal missing
            missing -= 1
            if not missing and not acked.done():
                acked.set_result(None)

        for message in messages:
            self._send(message, ack)
        try:
            await within(PUBLISH_S, acked)
        except TimeoutError as error:
            raise PublishTimedOut("no ack") from error

    async def next(self, topic: str, partition: int, position: Callable[[], int]) -> Stored:
        """The record at this position, which may be set back meanwhile, when it is there."""
        while True:
            log = self.log(topic, partition)
            if (wait_s := self.away_until - running().now) > 0:
                await sleep(wait_s)
            elif position() < len(log):
                at = position()
                await sleep(self.random.uniform(0.0005, 0.004))
                if position() == at:
                    return log[at]
            else:
                news = self._news.setdefault((topic, partition), asyncio.Event())
                news.clear()
                await news.wait()

    def wake(self, topic: str, partition: int) -> None:
        """A position was set back: who waits for more looks again."""
        if (topic, partition) in self._news:
            self._news[topic, partition].set()

    def latency_s(self) -> float:
        """One way, now and then a slow one; while the broker is away, until it is back."""
        usual = self.random.uniform(0.0005, 0.003) if self.random.random() < 0.95 else self.random.uniform(0.01, 0.4)
        return max(usual, self.away_until - running().now)

    def _send(self, message: Message, ack: Callable[[], None]) -> None:
        loop, process = running(), current()
        partition = message.partition
        if partition is None:
            partition = partition_for(message.key or b"", self.count(message.topic))
        place = (process, message.topic, partition)
        at = max(loop.now + self.latency_s(), self._last.get(place, 0.0) + 1e-6)
        self._last[place] = at
        stamp, lost = self.now_ms(), self.random.random() < 0.5

        def store() -> None:
            if process is not None and process.dead and lost:
                return
            log = self.log(message.topic, partition)
            log.append(
                Stored(message.topic, partition, len(log), message.key, message.value or b"", message.headers, stamp)
            )
            self._news.setdefault((message.topic, partition), asyncio.Event()).set()
            loop.call_world(loop.now + self.latency_s(), ack)

        loop.call_world(at, store)
        if process is not None:
            process.writes()


@dataclass(slots=True, eq=False)
class Member:
    """One worker of a group, as the coordinator knows it."""

    process: Process
    heard_at: float
    joined: asyncio.Event = field(default_factory=asyncio.Event)
    parts: frozenset[int] = frozenset()


@dataclass(slots=True)
class Group:
    """One consumer group over partitions ``0 .. count - 1`` of all its topics, and its committed offsets.

    A member that is not heard of for a session is no member any more; it hears so at its next heartbeat.
    """

    broker: Broker
    count: int
    members: dict[Process, Member] = field(default_factory=dict)
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    generation: int = 0
    assigning: bool = False

    def join(self, member: Member) -> None:
        """A new worker: a rebalance begins."""
        self.members[member.process] = member
        self.shake()

    def shake(self) -> None:
        """Begin a rebalance; each member is to give up its work when it hears of it, then gets its new share."""
        self.generation += 1
        for member in self.members.values():
            member.joined.clear()
        if not self.assigning:
            self.assigning = True
            running().call_world(running().now + 0.05, self._try)

    def heartbeat(self, process: Process) -> bool | None:
        """True: all is well; False: a rebalance is on; None: no member any more."""
        member = self.members.get(process)
        if member is None:
            return None
        member.heard_at = running().now
        return not self.assigning

    def commit(self, process: Process, generation: int, offsets: dict[tuple[str, int], int]) -> None:
        """Take offsets, unless they come from an earlier generation."""
        if process in self.members and generation == self.generation:
            self.committed.update(offsets)

    def watch(self) -> None:
        """Drop the members whose session is over, from now on, again and again."""
        now = running().now
        gone = [member for member in self.members.values() if now - member.heard_at > SESSION_S]
        for member in gone:
            del self.members[member.process]
        if gone and self.members:
            self.shake()
        running().call_world(now + 0.5, self.watch)

    def _try(self) -> None:
        """Assign once every member has joined; those that are silent leave when their session is over."""
        if not self.members:
            self.assigning = False
            return
        if not all(member.joined.is_set() for member in self.members.values()):
            running().call_world(running().now + 0.05, self._try)
            return
        self.assigning = False
        members = list(self.members.values())
        self.broker.random.shuffle(members)
        for place, member in enumerate(members):
            member.parts = frozenset(range(place, self.count, len(members)))
