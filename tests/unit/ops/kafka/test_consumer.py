"""The consumer over a client of Kafka in memory: rebalances, recoveries and seeks come between polls, as Faust does it.

Whatever the order of events, nothing is committed whose elders were not handled, and in the end all is handled.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.tables.recovery import RebalanceAgain
from faust.types import TP

from ops.kafka import consumer as module
from ops.kafka.clients import KafkaSettings
from ops.kafka.consumer import Consumer
from ops.kafka.faust_app import create_app

WORK = [TP("work", 0), TP("work", 1), TP("due", 0)]
CHANGELOG = TP("changelog", 0)
MOST = 4
ROUNDS = 4


class Client:
    """Kafka's client and its broker: positions move with each poll, whoever the records reach."""

    _closed = False
    _max_poll_records = MOST

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.ends = dict.fromkeys([*WORK, CHANGELOG], 0)
        self.committed: dict[TP, int] = {}
        self.positions: dict[TP, int] = {}
        self._fetcher = self._coordinator = self
        self._subscriptions = SimpleNamespace(fetch_context=nullcontext)

    async def fetched_records(self, partitions: Any, timeout: float, max_records: int) -> dict[TP, list[Any]]:
        del timeout
        await self.wait()
        found: dict[TP, list[Any]] = {}
        for tp in self.chance.sample(list(self.positions), len(self.positions)):
            if partitions and tp not in partitions:
                continue
            begin = self.positions[tp]
            records = [_record(tp, offset) for offset in range(begin, min(self.ends[tp], begin + max_records))]
            if records:
                found[tp] = records
                self.positions[tp] += len(records)
                max_records -= len(records)
        return found

    async def fetch_committed_offsets(self, wanted: Iterable[TopicPartition]) -> dict[TopicPartition, Any]:
        await self.wait()
        return {tp: SimpleNamespace(offset=self.committed[_tp(tp)]) for tp in wanted if _tp(tp) in self.committed}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions[_tp(partition)] = offset

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        await self.wait()
        return dict.fromkeys(partitions, 0)

    async def position(self, tp: TopicPartition) -> int:
        await self.wait()
        return self.positions[_tp(tp)]

    def rebalanced(self) -> None:
        """A new assignment: positions begin at what is committed."""
        self.positions = {tp: self.committed.get(tp, 0) for tp in self.ends}

    async def wait(self) -> None:
        for _ in range(self.chance.choice((0, 1, 3, 10, 30))):
            await asyncio.sleep(0)


def _tp(tp: Any) -> TP:
    return TP(tp.topic, tp.partition)


def _record(tp: TP, offset: int) -> Any:
    fields = "timestamp timestamp_type headers key value checksum serialized_key_size serialized_value_size"
    return SimpleNamespace(topic=tp.topic, partition=tp.partition, offset=offset, **dict.fromkeys(fields.split()))


class World:
    """A worker's consumer between the client and its agents, and the script of its rebalances."""

    def __init__(self, app: Any, client: Client) -> None:
        self.client, self.chance = client, client.chance
        self.handled: defaultdict[TP, set[int]] = defaultdict(set)
        self.seen: list[int] = []
        self.queues = {tp: asyncio.Queue[Any](MOST) for tp in client.ends}
        self.consumer: Any = app.consumer
        assert isinstance(self.consumer, Consumer)
        thread: Any = self.consumer._thread
        thread._consumer, thread.call_thread = client, _directly
        thread._ensure_consumer = lambda: client
        self.app = app
        self.app.topics._tp_index.update({tp: [SimpleNamespace(queue=q)] for tp, q in self.queues.items()})
        self.app.topics.acks_enabled_for = lambda _: True
        self.app.flow_control.resume()
        self.app.tables._changelogs[CHANGELOG.topic] = None
        changing: Any = self.consumer
        self.app.on_rebalance_return = lambda: None
        changing.assignment = lambda: set(client.ends)
        changing.highwater = lambda tp: client.ends[tp]
        changing.callback = self._give
        changing._on_partitions_revoked = self._revoked
        changing._on_partitions_assigned = self._assigned
        changing._commit = self._commit

    async def _give(self, message: Any) -> None:
        await self.queues[message.tp].put(message)

    async def _commit(self, offsets: dict[TP, int]) -> bool:
        generation = self.app.consumer_generation_id
        await self.client.wait()
        if generation != self.app.consumer_generation_id:
            return False
        for tp, offset in offsets.items():
            assert offset >= self.client.committed.get(tp, 0), f"the commit of {tp} goes back to {offset}"
            missing = set(range(offset)) - self.handled[tp]
            assert not missing, f"{tp} is committed at {offset}, never handled: {sorted(missing)}"
            self.client.committed[tp] = offset
        return True

    async def agent(self, tp: TP) -> None:
        """Handle record by record, and hand off each; some take long."""
        while True:
            message = await self.queues[tp].get()
            await self.client.wait()
            self.handled[tp].add(message.offset)
            self.consumer.handed_off(message)

    async def slurp(self) -> None:
        """Replay the changelog."""
        while True:
            message = await self.queues[CHANGELOG].get()
            await self.client.wait()
            if message.offset > (self.seen[-1] if self.seen else -1):
                self.seen.append(message.offset)

    async def _revoked(self, revoked: set[TP]) -> None:
        del revoked
        self.consumer.stop_flow()
        self.consumer.pause_partitions(self.consumer.assignment())
        for queue in self.queues.values():
            while not queue.empty():
                queue.get_nowait()
        await self.client.wait()

    async def _assigned(self, assigned: set[TP], generation_id: int) -> None:
        del generation_id
        await self.client.wait()
        self.consumer.pause_partitions(assigned)

    async def rebalance(self) -> None:
        await self.consumer.on_partitions_revoked(self.consumer.assignment())
        await self.client.wait()
        if self.chance.random() < 0.5:
            for tp in WORK:
                done = self.chance.randint(self.client.committed.get(tp, 0), self.client.ends[tp])
                self.handled[tp].update(range(done))
                self.client.committed[tp] = done
        self.client.rebalanced()
        self.app.consumer_generation_id += 1
        await self.consumer.on_partitions_assigned(self.consumer.assignment(), self.app.consumer_generation_id)

    async def recover(self) -> None:
        """Read the changelog to its end, then let the streams read: as Faust's recovery does, in its order."""
        consumer = self.consumer
        self.app.tables.recovery._generation_id = self.app.consumer_generation_id
        await consumer.seek_wait({CHANGELOG: self.seen[-1] if self.seen else 0})
        consumer.resume_partitions({CHANGELOG})
        consumer.resume_flow()
        end = self.client.ends[CHANGELOG]
        for _ in range(50_000):
            if len(self.seen) >= end:
                break
            await asyncio.sleep(0)
        else:
            raise AssertionError("the recovery never ends")
        consumer.pause_partitions({CHANGELOG})
        await self.client.wait()
        consumer.resume_partitions(set(WORK))
        await consumer.perform_seek()
        consumer.resume_flow()

    async def arrive(self) -> None:
        """Records come in all the time."""
        for _ in range(25):
            tp = self.chance.choice([*WORK, CHANGELOG])
            self.client.ends[tp] += self.chance.randint(1, 3)
            await self.client.wait()

    async def live(self) -> None:
        """Some rebalances, some in the midst of a recovery; then all that came in is handled."""
        arriving = asyncio.create_task(self.arrive())
        for _ in range(ROUNDS):
            await self.rebalance()
            recovering = asyncio.create_task(self.recover())
            if self.chance.random() < 0.5:
                await self.client.wait()
            else:
                await recovering
                for _ in range(self.chance.randint(0, 5)):
                    await self.client.wait()
            if not recovering.done() and self.chance.random() < 0.5:
                recovering.cancel()
            await asyncio.wait({asyncio.create_task(self.rebalance())})
            recovering.cancel()
            await asyncio.gather(recovering, return_exceptions=True)
            await self.recover()
            await self.client.wait()
        await arriving
        for _ in range(200_000):
            if all(len(self.handled[tp]) == self.client.ends[tp] for tp in WORK):
                break
            await asyncio.sleep(0)
        else:
            raise AssertionError("not all is handled")
        await self.consumer.commit()
        assert self.seen == list(range(len(self.seen))), "the replay of the changelog has holes"


async def _directly(call: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
    await asyncio.sleep(0)
    return await asyncio.shield(asyncio.ensure_future(call(*args, **more)))


@asynccontextmanager
async def world(seed: int, folder: Path) -> AsyncIterator[World]:
    kafka = KafkaSettings(bootstrap="127.0.0.1:1", dialect="apache")
    made = World(create_app("a", kafka, datadir=str(folder)), Client(random.Random(seed)))
    fetcher = SimpleNamespace(should_stop=False)
    tasks = [asyncio.create_task(made.agent(tp)) for tp in WORK]
    tasks += [asyncio.create_task(made.slurp()), asyncio.create_task(made.consumer._drain_messages(fetcher))]
    tasks.append(asyncio.create_task(_committing(made)))
    life = asyncio.create_task(made.live())
    try:
        await asyncio.wait([life, *tasks], return_when=asyncio.FIRST_COMPLETED, timeout=60)
        for task in tasks:
            assert not task.done(), task.exception()
        assert life.done(), "it stands still"
        life.result()
        yield made
    finally:
        for task in [life, *tasks]:
            task.cancel()
        await asyncio.gather(life, *tasks, return_exceptions=True)


async def _committing(made: World) -> None:
    while True:
        await made.consumer.commit()
        await made.client.wait()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_S", "ROOM_S"):
        monkeypatch.setattr(module, name, 0)


@pytest.mark.parametrize("seed", range(60))
async def test_nothing_is_committed_before_its_elders_and_all_is_handled(seed: int, tmp_path: Path) -> None:
    async with world(seed, tmp_path):
        pass


def _without_numbers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Consumer, "_counts", lambda *_: True)


def _without_turns(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(asyncio.Lock, "__aenter__", _nothing)
    patch.setattr(asyncio.Lock, "__aexit__", _nothing)


def _acks_of_old_records(patch: pytest.MonkeyPatch) -> None:
    def handed_off(self: Consumer, message: Any) -> None:
        message.acked = False
        super(Consumer, self).ack(message)

    patch.setattr(Consumer, "handed_off", handed_off)


async def _nothing(*_: Any) -> None:
    pass


async def _lives(count: int, folder: Path) -> None:
    for seed in range(count):
        async with world(seed, folder):
            pass


@pytest.mark.parametrize("defect", [_without_numbers, _without_turns, _acks_of_old_records])
async def test_without_a_rule_some_order_of_events_breaks_a_promise(
    defect: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    with pytest.raises(AssertionError):
        await _lives(200, tmp_path)


async def test_no_seek_is_made_for_a_recovery_that_a_rebalance_has_overtaken(tmp_path: Path) -> None:
    made = World(
        create_app("a", KafkaSettings(bootstrap="127.0.0.1:1"), datadir=str(tmp_path)), Client(random.Random(1))
    )
    await made.rebalance()
    with pytest.raises(RebalanceAgain):
        await made.consumer.perform_seek()
    made.app.tables.recovery._generation_id = made.app.consumer_generation_id
    await made.consumer.perform_seek()
    await made.consumer.on_partitions_revoked(set(WORK))
    with pytest.raises(RebalanceAgain):
        await made.consumer.perform_seek()
