"""DELAY: holds a retry until it is due, then hands it back to its lane. One role serves all tiers.

Reads ``payments.retry.<tier>``, writes ``payments.lane.<lane>.due`` and dead letters; never calls a provider. A task is
never handed on before its ``not_before_ms``; idle, it is at most 250 ms late. Its offset is committed once the broker
has acked what was handed on: a crash hands it on again, which dispatch drops (same payment, same attempt). A partition
whose head is not due is paused and set back: the backlog waits in Kafka, not here.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from prometheus_client import Counter, Gauge, Histogram

from ops.failpoints import Failpoint
from ops.kafka.clients import Message, Publisher, PublishTimedOut, RecordRefused
from ops.telemetry import admin_server, logger
from schemas import topics
from streams.hold import Hold, Plan, Seen, Step, give_up, plan
from streams.settings import StreamSettings

WAITING = Gauge("kifiya_delay_waiting", "Retries that wait, as far as seen.", ["tier"])
FORWARDED = Counter("kifiya_delay_forwarded", "Retries handed back to their lane.", ["tier", "lane"])
LETTERS = Counter("kifiya_delay_dead_letters", "Records of the retry topics given up, by reason.", ["reason"])
LATE = Histogram(
    "kifiya_delay_late_seconds",
    "How long after its not_before a retry was acked by its lane's topic.",
    ["tier"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 5, 30, 300),
)

BEFORE_FORWARD: Final = Failpoint("delay.before-forward")
AFTER_FORWARD: Final = Failpoint("delay.after-forward")
AFTER_COMMIT: Final = Failpoint("delay.after-commit")

MAX_RECORDS: Final = 500
"""Records in hand at once, over all tiers."""
FETCH_BYTES: Final = 256 * 1024
FETCH_WAIT_MS: Final = 100
"""A resumed partition waits for the fetch under way: half of what being late may cost."""
LOOK_MS: Final = 200
"""Longest wait between two looks at the clock and at the stop sign."""
PATIENCE_S: Final = 120.0
"""How long Kafka may be away before the role gives up and is started anew."""
PROBE_S: Final = 5.0
REQUEST_S: Final = 10.0
STOP_S: Final = 5.0


class BrokerAway(RuntimeError):
    """Kafka did not answer for ``PATIENCE_S``; the process ends with a status other than 0, offsets stay."""


@dataclass(slots=True)
class Patience:
    """Counts how long something has failed without a break. Raises BrokerAway when it is too long."""

    clock: Callable[[], float] = time.monotonic
    limit_s: float = PATIENCE_S
    since: float | None = None
    tries: int = 0

    def ok(self) -> None:
        """It works again."""
        self.since, self.tries = None, 0

    def failed(self, error: BaseException, what: str) -> float:
        """Seconds to wait before the next try: 0.1 s doubling to 5 s."""
        now = self.clock()
        self.since = now if self.since is None else self.since
        if now - self.since >= self.limit_s:
            raise BrokerAway(f"Kafka was away for {self.limit_s:.0f} s: {what}") from error
        self.tries += 1
        logger().warning(what, action="kafka-away", error=type(error).__name__, attempt=self.tries)
        return min(5.0, 0.1 * 2.0 ** min(self.tries - 1, 10))


Publish = Callable[[list[Message]], Awaitable[None]]


class Delay(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """The loop over one consumer. :meth:`step` is one round; nothing outlives it but which heads are held."""

    def __init__(  # noqa: PLR0913 - the clocks are arguments too
        self,
        consumer: AIOKafkaConsumer,
        publish: Publish,
        tiers: Sequence[str],
        lanes: frozenset[str],
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._publish = publish
        self._tiers = {topics.retry_topic(tier): tier for tier in tiers}
        self._lanes = lanes
        self._now_ms = now_ms
        self._clock = clock
        self._held: dict[TopicPartition, Hold] = {}
        self._seen: dict[TopicPartition, Seen] = {}
        self._generation = 0
        self._joined = False
        self.patience = Patience(clock)
        self.sending = Patience(clock)
        self.last_round = clock()

    def on_partitions_revoked(self, revoked: Any) -> None:
        """What is in hand is somebody else's now: it is neither sent again nor committed."""
        del revoked
        self._generation += 1
        self._held.clear()
        self._seen.clear()
        self._joined = False

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Begin at the committed offsets."""
        self._generation += 1
        self._joined = True
        logger().info("retry partitions assigned", action="assigned", count=len(assigned))

    def health(self) -> dict[str, Any]:
        """Ready while the group is joined, Kafka answers and the loop turns."""
        missing = [
            name
            for name, bad in (
                ("group", not self._joined),
                ("kafka", self.patience.since is not None or self.sending.since is not None),
                ("progress", self._clock() - self.last_round > 2 * PATIENCE_S),
            )
            if bad
        ]
        return {"ready": not missing, "missing": missing, "held": len(self._held)}

    async def step(self) -> None:
        """Wake what has become due, take what is there, hand on what is due, commit. Raises BrokerAway."""
        self.last_round = self._clock()
        timeout_ms = self._wake()
        try:
            batches = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=MAX_RECORDS)
        except KafkaError as error:
            await asyncio.sleep(self.patience.failed(error, "retries cannot be read"))
            return
        generation = self._generation
        plans = [self._plan(tp, records) for tp, records in batches.items() if records]
        steps = [step for todo in plans for step in todo.steps]
        if steps and await self._send(steps, generation):
            done = {TopicPartition(step.record.topic, step.record.partition): step.record.offset + 1 for step in steps}
            await self._commit(done, generation)

    def _wake(self) -> int:
        """Resume the partitions whose head is due; milliseconds until the next one is."""
        now_ms, now = self._now_ms(), self._clock()
        left = {tp: hold.left_s(now_ms, now) for tp, hold in self._held.items()}
        for tp in [tp for tp, seconds in left.items() if seconds <= 0]:
            del self._held[tp]
            if tp in self._consumer.assignment():
                self._consumer.resume(tp)
        soonest = min((seconds for seconds in left.values() if seconds > 0), default=LOOK_MS / 1000)
        return min(LOOK_MS, max(1, math.ceil(soonest * 1000)))

    def _plan(self, tp: TopicPartition, records: Sequence[ConsumerRecord]) -> Plan:
        """Decide, and set the partition back to the first record that is not due. No await: nothing can be revoked."""
        now_ms, now = self._now_ms(), self._clock()
        seen = self._seen.get(tp)
        if seen is None or records[0].offset > seen.upto:
            seen = self._seen[tp] = Seen(records[-1].offset, now)
        tier = self._tiers[tp.topic]
        todo = plan(records, tier_s=topics.tier_ms(tier) / 1000, lanes=self._lanes, seen=seen, now_ms=now_ms, now=now)
        if todo.hold is not None and tp in self._consumer.assignment():
            self._consumer.seek(tp, todo.hold_at)
            self._consumer.pause(tp)
            self._held[tp] = todo.hold
        return todo

    async def _send(self, steps: Sequence[Step], generation: int) -> bool:
        """All acked: True. False: the group has changed meanwhile; whoever owns the partitions now does it again."""
        while generation == self._generation:
            try:
                await BEFORE_FORWARD.reach()
                try:
                    await self._publish([step.message for step in steps])
                    done = steps
                except RecordRefused:
                    done = [await self._send_alone(step) for step in steps]
            except (PublishTimedOut, KafkaError) as error:
                await asyncio.sleep(self.sending.failed(error, "due retries cannot be handed on"))
            else:
                await AFTER_FORWARD.reach()
                self.sending.ok()
                self._count(done)
                return generation == self._generation
        return False

    async def _send_alone(self, step: Step) -> Step:
        """A broker refuses whole batches: only a record refused on its own becomes a letter, the truncated one last.

        Raises RecordRefused where even the letter is refused: the topic's settings are wrong, and the offset stays.
        """
        try:
            await self._publish([step.message])
        except RecordRefused as error:
            step = give_up(step.record, "refused-by-broker", type(error.cause).__name__, self._now_ms(), step.task)
            await self._publish([step.message])
        return step

    def _count(self, steps: Sequence[Step]) -> None:
        now_ms = self._now_ms()
        for step in steps:
            if step.reason is not None:
                LETTERS.labels(step.reason).inc()
                logger().warning("retry given up", action="dead-letter", reason=step.reason, topic=step.record.topic)
            elif step.task is not None:
                tier = self._tiers[step.record.topic]
                FORWARDED.labels(tier, step.task.lane).inc()
                due_ms = max(step.task.not_before_ms, step.record.timestamp)
                LATE.labels(tier).observe(max(0.0, (now_ms - due_ms) / 1000))

    async def _commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        if generation != self._generation:
            return
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._consumer.commit(dict(offsets))
        except (CommitFailedError, IllegalStateError):
            return  # revoked just now: the new owner hands it on again
        except (KafkaError, TimeoutError) as error:
            await asyncio.sleep(self.patience.failed(error, "offsets cannot be committed"))
        else:
            await AFTER_COMMIT.reach()

    async def probe(self) -> None:
        """Ask Kafka now and then how far the retry topics reach: the gauge, and whether it is there at all."""
        while True:
            await asyncio.sleep(PROBE_S)
            waiting = dict.fromkeys(self._tiers.values(), 0)
            try:
                async with asyncio.timeout(REQUEST_S):
                    await self._consumer.topics()
                    assigned = self._consumer.assignment()
                    for tp, end in (await self._consumer.end_offsets(list(assigned)) if assigned else {}).items():
                        waiting[self._tiers[tp.topic]] += max(0, end - await self._consumer.position(tp))
            except IllegalStateError:
                continue  # a rebalance came between
            except (KafkaError, TimeoutError) as error:
                self.patience.failed(error, "Kafka does not answer")
                continue
            self.patience.ok()
            for tier, count in waiting.items():
                WAITING.labels(tier).set(count)


def open_consumer(settings: StreamSettings) -> AIOKafkaConsumer:
    """The role's own consumer, not started: manual commits, committed records only, small fetches."""
    quick = settings.kafka.dialect == "tansu"
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap,
        group_id=topics.DELAY_GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=MAX_RECORDS,
        max_partition_fetch_bytes=FETCH_BYTES,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        session_timeout_ms=6_000 if quick else 15_000,
        heartbeat_interval_ms=1_000 if quick else 3_000,
        request_timeout_ms=int(REQUEST_S * 1000),
    )


async def run(settings: StreamSettings) -> None:
    """Hold and hand on until SIGTERM or SIGINT. Raises BrokerAway when Kafka stays away."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.create_task(_serve(settings))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if serving.done():
        serving.result()
        return
    serving.cancel()  # in hand is at most one batch: uncommitted, so it is handed on again
    await asyncio.wait({serving}, timeout=STOP_S)
    logger().info("delay stopped", action="stopped")


async def _serve(settings: StreamSettings) -> None:
    patience = Patience()
    lanes, tiers = frozenset(settings.lane_table()), settings.tiers()
    while True:
        async with AsyncExitStack() as stack:
            try:
                publisher = await stack.enter_async_context(Publisher(settings.kafka))
                consumer = open_consumer(settings)
                stack.push_async_callback(consumer.stop)
                delay = Delay(consumer, publisher.publish, tiers, lanes)
                consumer.subscribe([topics.retry_topic(tier) for tier in tiers], listener=delay)
                await consumer.start()
            except (KafkaError, OSError, TimeoutError) as error:
                wait_s = patience.failed(error, "Kafka cannot be reached yet")
            else:
                await stack.enter_async_context(admin_server(settings.admin_host, settings.admin_port, delay.health))
                await _turn(delay)
        await asyncio.sleep(wait_s)


async def _turn(delay: Delay) -> NoReturn:
    """Rounds without end, with the probe beside them. Raises what ends either."""
    probe = asyncio.create_task(delay.probe())
    try:
        while True:
            await delay.step()
            if probe.done():
                probe.result()
    finally:
        probe.cancel()
