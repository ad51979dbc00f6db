"""A worker of a group as a process of the simulation: partitions, recovery, commits, the gate of the writes.

What Faust and aiokafka do in between (groups, recovery, commits, the gate of the writes) is done here as
``ops.kafka`` makes them do it: data of a partition that goes away are dropped, work in hand of it is cancelled, writes
under way hold a rebalance up, recovery keeps the winner and writes it back, and nothing flows before that.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from ops.chaos.sim.kafka import HEARTBEAT_S, SESSION_S, Broker, Group, Member, Stored
from ops.chaos.sim.loop import Process, running, sleep
from ops.kafka.clients import PublishError
from ops.kafka.lease import Lease
from ops.kafka.message import Message
from ops.kafka.tables import Parts

COMMIT_S: Final = 1.0
POLL_S: Final = 0.05
RESTART_S: Final = 0.5
WRITES_S: Final = 5.0
BATCH: Final = 5

Winner = Callable[[bytes | None, bytes], bytes]


@dataclass(slots=True)
class Table:
    """A changelog-backed table of one process."""

    broker: Broker
    topic: str
    winner: Winner | None = None
    parts: Parts = field(default_factory=Parts)

    async def append(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Append to the changelog; returns when all are acked. Raises PublishError."""
        await self.broker.publish([Message(self.topic, key, value, partition=partition) for key, value in entries])

    async def recover(self, partition: int) -> None:
        """Replay the changelog as it stands over what is there; write back what counts where something else is last."""
        await sleep(self.broker.latency_s())
        log = list(self.broker.log(self.topic, partition))
        await sleep(self.broker.latency_s())
        lost: set[bytes] = set()
        for record in log:
            key = record.key or b""
            kept = record.value
            if self.winner is not None and record.value is not None:
                kept = self.winner(self.parts.get(partition, key), record.value)
            self.parts.put(partition, key, kept)
            (lost.discard if kept == record.value else lost.add)(key)
        if lost:
            part = self.parts.of(partition)
            await self.append(partition, [(key, part[key]) for key in sorted(lost)])


class Worker(ABC):
    """One process that works on partitions of a group; started anew where it dies."""

    def __init__(self, name: str, group: Group, told: Callable[[str], None]) -> None:
        self.name = name
        self.group = group
        self.tell = told
        self.process = Process(name)
        self._boot()

    def _boot(self) -> None:
        self.lease = Lease(SESSION_S, self.clock)
        self.table: Table | None = None
        self.parts: frozenset[int] = frozenset()
        self.rebalancing = True
        self.writes = 0
        self.acked: dict[tuple[str, int], int] = {}
        self.positions: dict[tuple[str, int], int] = {}
        self.agents: dict[int, list[asyncio.Task[None]]] = {}
        self.generation = -1
        self._shaken = asyncio.Event()

    def clock(self) -> float:
        """The process' monotonic clock."""
        return running().now

    def start(self) -> None:
        """Start it, or start it anew."""
        self.process = Process(self.name)
        self._boot()
        self.process.spawn(self._main())

    def kill(self, restart_s: float = RESTART_S) -> None:
        """SIGKILL; a supervisor starts it again."""
        if self.process.dead:
            return
        self.process.dead = True
        self.tell(f"{self.name} dies")
        running().call_world(running().now + restart_s, self.start)

    def doom(self, writes: int, restart_s: float = RESTART_S) -> None:
        """SIGKILL right after so many writes more, each of which may or may not have gone out."""
        self.process.writes_left = writes
        self.process.doom = lambda: self.kill(restart_s)

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT so much later."""
        self.tell(f"{self.name} stops for {seconds:.1f} s")
        self.process.stopped_until = max(self.process.stopped_until, running().now + seconds)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """As ``ops.kafka.faust_app.App.writing``."""
        while self.rebalancing or not self.lease.holds():
            await sleep(POLL_S)
        self.writes += 1
        try:
            yield
        finally:
            self.writes -= 1

    @abstractmethod
    async def open(self) -> None:
        """Make what the process works with."""

    @abstractmethod
    def sources(self) -> dict[str, Callable[[list[Stored]], Awaitable[None]]]:
        """What it reads, and what it does with records of one partition."""

    batch: int = 1
    most: int = 1
    """How many records, or batches, of a partition are in hand at once."""

    async def _main(self) -> None:
        await self.open()
        self._join()
        self.process.later(COMMIT_S, self._commit)
        self.process.spawn(self._rebalances())
        self._heartbeat()

    # Heartbeats and commits are most of what a life consists of: callbacks, as tasks would cost twice as much.

    def _heartbeat(self) -> None:
        asked_at = self.clock()
        self.process.later(self.group.broker.latency_s(), lambda: self._heard(asked_at))

    def _heard(self, asked_at: float) -> None:
        """The coordinator's side."""
        well = self.group.heartbeat(self.process)
        self.process.later(self.group.broker.latency_s(), lambda: self._answered(asked_at, well=well))

    def _answered(self, asked_at: float, *, well: bool | None) -> None:
        if well is None:
            self.tell(f"{self.name} hears that it is out")
            self._join()
        else:
            self.lease.renewed(asked_at)
        if not well:
            self.rebalancing = True
            self._shaken.set()
        self.process.later(HEARTBEAT_S, self._heartbeat)

    def _commit(self) -> None:
        self.process.later(self.group.broker.latency_s(), self._committed)

    def _committed(self) -> None:
        self.group.commit(self.process, self.generation, dict(self.acked))
        self.process.later(COMMIT_S, self._commit)

    def _join(self) -> None:
        self.rebalancing = True
        self.group.join(Member(self.process, running().now))
        self._shaken.set()

    async def _rebalances(self) -> None:
        while True:
            await self._shaken.wait()
            self._shaken.clear()
            end = self.clock() + WRITES_S
            while self.writes and self.clock() < end:
                await sleep(0.005)
            member = self.group.members.get(self.process)
            if member is None:
                continue  # the next heartbeat tells
            member.joined.set()
            generation = self.group.generation
            while self.group.assigning and self.group.generation == generation:
                await sleep(POLL_S)
            if self.group.generation != generation or self.process not in self.group.members:
                self._shaken.set()
                await sleep(POLL_S)
                continue
            await self._take(member.parts, generation)

    async def _take(self, parts: frozenset[int], generation: int) -> None:
        gone = [agent for partition in self.parts - parts for agent in self.agents.pop(partition, [])]
        for agent in gone:
            agent.cancel()
        if gone:
            await asyncio.wait(gone)  # as Faust does before it says that a rebalance is over
        for partition in self.parts - parts:
            if self.table is not None:
                self.table.parts.drop(partition)
        fresh = parts - self.parts
        self.parts, self.generation = parts, generation
        self.acked.clear()
        if not await self._recovered():
            return
        for partition, topic in itertools.product(parts, self.sources()):
            self.positions[topic, partition] = self.group.committed.get((topic, partition), 0)
            self.group.broker.wake(topic, partition)
        if self.group.generation == generation:
            self.rebalancing = False
        for partition in sorted(fresh):
            self.agents[partition] = [
                self.process.spawn(self._agent(topic, partition, handle)) for topic, handle in self.sources().items()
            ]

    async def _recovered(self) -> bool:
        try:
            if self.table is not None:
                for partition in sorted(self.parts):
                    await self.table.recover(partition)
        except PublishError:
            self.kill()
            return False
        return True

    async def _agent(self, topic: str, partition: int, handle: Callable[[list[Stored]], Awaitable[None]]) -> None:
        broker, place = self.group.broker, (topic, partition)
        hand: dict[asyncio.Task[None], None] = {}
        try:
            while True:
                while self.rebalancing:
                    await sleep(POLL_S)
                records = [await broker.next(topic, partition, lambda: self.positions[place])]
                at = records[0].offset
                records += broker.log(topic, partition)[at + 1 : at + self.batch]
                self.positions[place] = at + len(records)
                if self.most == 1:
                    await self._one(place, records, handle)
                    continue
                task = self.process.spawn(self._one(place, records, handle, next(reversed(hand), None)))
                hand[task] = None
                task.add_done_callback(hand.pop)
                while len(hand) >= self.most:
                    await asyncio.wait(hand, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (left := list(hand)):
                task.cancel()
            if left:
                await asyncio.wait(left)

    async def _one(
        self,
        place: tuple[str, int],
        records: list[Stored],
        handle: Callable[[list[Stored]], Awaitable[None]],
        before: asyncio.Task[None] | None = None,
    ) -> None:
        """Handle what was read at once, and ack it after what was read before it."""
        try:
            await handle(records)
            if before is not None:
                await asyncio.wait({before})
        except PublishError:
            self.kill()
            return
        except Exception as error:
            self.tell(f"DEFECT {type(error).__name__} left {self.name}: {error}")
            raise
        self.acked[place] = records[-1].offset + 1
