"""Faust as this gateway uses it: an app whose commits never skip a record, tables that recover by a rule, a clean end.

Rules (measured): streams run with ``noack`` and ack each event after its handoff, in offset order; what a table holds is
durable in its changelog before it stands in the local store; nothing pauses a partition; no exception leaves an agent.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.stores.memory import Store as MemoryStore
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from ops.kafka.clients import KafkaSettings, Message, Publisher, end_offsets
from ops.kafka.progress import Progress, watch
from ops.telemetry import logger
from schemas import topics

Winner = Callable[[bytes | None, bytes], bytes]
STOP_S: Final = 10.0


class _Thread(driver.AIOKafkaConsumerThread):
    """Reads committed records only, and asks for the true ends of the changelogs."""

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - Faust offers it with transactions only
        return consumer

    async def _highwaters(self, partitions: Any) -> Mapping[TP, int]:
        wanted = [TopicPartition(tp.topic, tp.partition) for tp in partitions]
        ends = await end_offsets(self.app.conf.kifiya_kafka, wanted)
        return {TP(tp.topic, tp.partition): end for tp, end in ends.items()}


class _Consumer(driver.Consumer):
    """Commits up to the first record that is still in hand, whatever gaps the log has.

    Faust's own bookkeeping wants consecutive offsets and freezes at a transaction's markers; ours remembers which
    delivered records are not acked yet, so a hole made by an aborted transaction is passed and a lost one never is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_hand: dict[TP, dict[int, float]] = {}

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def track_message(self, message: Any) -> None:
        self._in_hand.setdefault(message.tp, {})[message.offset] = message.timestamp or 0.0
        super().track_message(message)

    def ack(self, message: Any) -> bool:
        self._in_hand.get(message.tp, {}).pop(message.offset, None)
        return bool(super().ack(message))

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        for tp in revoked:
            self._in_hand.pop(tp, None)
        await super().on_partitions_revoked(revoked)

    def standing(self, names: frozenset[str]) -> tuple[dict[str, int], dict[str, float], int]:
        """Of these topics' assigned partitions: records left, age of the oldest in hand (seconds), offsets committed."""
        left: dict[str, int] = {}
        age_s: dict[str, float] = {}
        done, now = 0, time.time()
        for tp in self.assignment():
            if tp.topic not in names:
                continue
            committed = self._committed_offset.get(tp) or 0
            done += committed
            left[tp.topic] = left.get(tp.topic, 0) + max(0, (self.highwater(tp) or 0) - committed)
            oldest = next(iter(self._in_hand.get(tp) or {}), None)
            if oldest is not None:
                stamped = self._in_hand[tp][oldest]
                age_s[tp.topic] = max(age_s.get(tp.topic, 0.0), now - stamped if stamped else 0.0)
        return left, age_s, done

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps need no entry here."""

    def _new_offset(self, tp: TP) -> int | None:
        acked: list[int] = self._acked[tp]
        if not acked:
            return None
        bound = min(self._in_hand.get(tp) or {max(acked) + 1})
        done = [offset for offset in acked if offset < bound]
        if not done:
            return None
        acked[:] = [offset for offset in acked if offset >= bound]
        self._acked_index[tp].difference_update(done)
        return max(done) + 1


class _Transport(driver.Transport):
    Consumer = _Consumer


class _WinnerStore(MemoryStore):  # type: ignore[type-arg]
    """A memory store that keeps, during recovery, the value that ``winner`` prefers instead of the last one."""

    winner: Winner

    def apply_changelog_batch(self, batch: Iterable[Any], to_key: Any, to_value: Any) -> None:
        for event in batch:
            key = to_key(event.key)
            if event.message.value is None:
                self.data.pop(key, None)
                self._key_partition.pop(key, None)
            else:
                self._key_partition[key] = event.message.partition
                self.data[key] = self.winner(self.data.get(key), to_value(event.value))


class App(faust.App):
    """A Faust app that knows why it stopped and whether its partitions are assigned."""

    failure: BaseException | None = None
    kafka: KafkaSettings
    progress: Progress

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    @property
    def missing(self) -> list[str]:
        """What this role lacks to do its work: partitions, or progress with those it has."""
        return [name for name, bad in (("partitions", not self.assigned), ("progress", self.progress.stalled)) if bad]

    @property
    def assigned(self) -> bool:
        """Whether partitions are assigned and recovered, so records flow."""
        return bool(self.started and not self.rebalancing and not self.in_recovery and self._partitions_seen)

    _partitions_seen = False


def create_app(name: str, kafka: KafkaSettings, *, datadir: str) -> App:
    """An app named ``name`` (its consumer group). Connects nothing; topics are declared elsewhere and never created here."""
    Path(datadir).mkdir(parents=True, exist_ok=True)
    tansu = kafka.dialect == "tansu"
    app = App(
        name,
        broker=f"kafka://{kafka.bootstrap.replace(',', ';kafka://')}",
        datadir=str(Path(datadir) / name),
        store="memory://",
        processing_guarantee="at_least_once",
        table_standby_replicas=0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=1,
        broker_commit_interval=1.0,
        broker_commit_every=1000,
        broker_session_timeout=6.0 if tansu else 15.0,
        broker_heartbeat_interval=1.0 if tansu else 3.0,
        broker_max_poll_interval=86_400.0,
        broker_max_poll_records=8 if name.startswith("kifiya.dispatch") else 500,
        stream_buffer_maxsize=64 if name.startswith("kifiya.dispatch") else 4096,
        stream_wait_empty=False,
        stream_processing_timeout=3600.0,
        stream_recovery_delay=0.0,
        recovery_consistency_check=not tansu,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.005,
        producer_request_timeout=60.0,
        web_enabled=False,
        worker_redirect_stdouts=False,
        key_serializer="raw",
        value_serializer="raw",
        autodiscover=False,
    )
    app.kafka = kafka
    app.conf.kifiya_kafka = kafka
    app.progress = Progress()

    @app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
    async def seen(*_: Any, **__: Any) -> None:
        app._partitions_seen = True  # noqa: SLF001 - our own class

    return app


def topic(app: App, name: str) -> Any:
    """A topic of raw keys and values: records are decoded in our code, where a bad one can be dead-lettered."""
    return app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


def create_table(app: App, name: str, partitions: int, *, winner: Winner | None = None) -> Any:
    """A table of raw bytes; its changelog is declared by ``schemas.topics``.

    ``winner(old, new)`` picks the value that recovery keeps; without it the last one stays.
    """
    table = app.Table(name, partitions=partitions, key_type=bytes, value_type=bytes)
    if winner is not None:
        store = _WinnerStore(
            "memory://",
            app,
            table,
            table_name=table.name,
            key_type=bytes,
            key_serializer="raw",
            value_type=bytes,
            value_serializer="raw",
            options=None,
        )
        store.winner = winner
        table._data = store  # noqa: SLF001 - Faust takes stores by URL only
    return table


def appender(app: App, name: str, publisher: Publisher) -> Callable[[int, bytes, bytes | None], Any]:
    """Append one record to a table's changelog; returns when it is acked. Raises PublishError."""
    changelog = topics.changelog_topic(app.conf.id, name)

    async def append(partition: int, key: bytes, value: bytes | None) -> None:
        await publisher.publish([Message(changelog, key, value, partition=partition)])

    return append


def ack(event: Any) -> None:
    """This event is handed off: its offset may be committed."""
    event.message.refcount = 0
    event.message.acked = False
    event.app.consumer.ack(event.message)


def crash(app: App, error: BaseException) -> None:
    """Stop the process with a failure: offsets in hand stay uncommitted and the records come back."""
    if app.failure is None:
        app.failure = error
        logger().error("stopping: what was promised could not be kept", action="crash", error=type(error).__name__)
        stop: asyncio.Event | None = getattr(app, "stop_wanted", None)
        if stop is not None:
            stop.set()


@asynccontextmanager
async def _started(app: App) -> AsyncIterator[None]:
    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True, loop=asyncio.get_running_loop())
    worker.install_signal_handlers = lambda: None
    await worker.start()
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(STOP_S):
                await worker.stop()
        except TimeoutError:
            logger().warning("Faust did not stop in time", action="stop-timeout")


async def serve(app: App) -> None:
    """Run the app until SIGTERM or SIGINT, then leave within seconds. Raises SystemExit(1) after :func:`crash`."""
    stop = asyncio.Event()
    app.stop_wanted = stop
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    read = frozenset(name for agent in app.agents.values() for name in agent.channel.topics)
    async with _started(app):
        watching = asyncio.create_task(watch(app, app.progress, read))
        try:
            await stop.wait()
        finally:
            watching.cancel()
    if app.failure is not None:
        raise SystemExit(1) from app.failure
