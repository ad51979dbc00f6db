"""Faust as this gateway uses it: an app whose commits never skip a record, tables that recover by a rule, a clean end.

Rules (measured): streams run with ``noack`` and ack each event after its handoff, in offset order; what a table has is
durable in its changelog before it stands in the local store; nothing pauses a partition; no exception leaves an agent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.group_coordinator import HeartbeatRequest, SyncGroupRequest
from aiokafka.errors import RebalanceInProgressError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.queues import FlowControlEvent

from ops.kafka.clients import KafkaSettings, end_offsets
from ops.kafka.lease import Lease
from ops.kafka.progress import Progress, watch
from ops.telemetry import logger

STOP_S: Final = 10.0
"""How long a clean end may take; then the process ends without it, which is as safe."""
LOOK_S: Final = 0.02
WRITES_S: Final = 5.0
TANSU_WAIT_MS: Final = 50
"""Tansu answers a fetch when its wait is over, whatever has come in meanwhile."""
_STILL_A_MEMBER: Final = frozenset({0, RebalanceInProgressError.errno})


class _Thread(driver.AIOKafkaConsumerThread):
    """Reads committed records only, asks for the true ends of the changelogs, and keeps the lease."""

    app: App

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - Faust offers it with transactions only
        if self.app.conf.kifiya_kafka.dialect == "tansu":
            consumer._fetch_max_wait_ms = TANSU_WAIT_MS  # noqa: SLF001 - Faust's 1500 ms are fixed
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 - nobody else tells when a heartbeat was answered
        send, lease = coordinator._send_req, self.app.lease  # noqa: SLF001

        async def send_and_note(request: Any) -> Any:
            asked_at = lease.clock()
            response = await send(request)
            if isinstance(request, HeartbeatRequest | SyncGroupRequest) and response.error_code in _STILL_A_MEMBER:
                lease.renewed(asked_at)
            return response

        coordinator._send_req = send_and_note  # noqa: SLF001

    async def seek_to_committed_or_beginning(self, partitions: set[TP]) -> dict[TP, int | None]:
        """Seek; the committed offsets, None where nothing was committed."""
        found: dict[TP, int | None] = await self.call_thread(self._seek_back, partitions)
        return found

    async def _seek_back(self, partitions: set[TP]) -> dict[TP, int | None]:
        consumer = self._ensure_consumer()
        committed: dict[TP, int | None] = {}
        for tp in partitions:
            there = TopicPartition(tp.topic, tp.partition)
            committed[tp] = found = (await consumer.committed(there)) or None
            if found is not None:
                consumer.seek(there, found)
        fresh = [TopicPartition(tp.topic, tp.partition) for tp, found in committed.items() if found is None]
        if fresh:
            await consumer.seek_to_beginning(*fresh)
        return committed

    async def _highwaters(self, partitions: Any) -> Mapping[TP, int]:
        wanted = [TopicPartition(tp.topic, tp.partition) for tp in partitions]
        ends = await end_offsets(self.app.conf.kifiya_kafka, wanted)
        return {TP(tp.topic, tp.partition): end for tp, end in ends.items()}


class _Flow(FlowControlEvent):
    """Lets records flow again without throwing away what is in the queues.

    Faust empties them when it resumes after a recovery; records that came in just before were fetched after the seek to
    the committed offsets, so nobody would read them again. What is stale was cleared when the flow was suspended.
    """

    def resume(self) -> None:
        self._suspend.clear()
        self._resume.set()


class _Consumer(driver.Consumer):
    """Commits what we have handed off, and nothing that Faust thinks is done.

    Faust acks a record when an agent's loop leaves it, whatever the reason: an exception, a cancellation, the end
    of a batch's generator. All these are ignored. Its own bookkeeping wants consecutive offsets and freezes at a
    transaction's markers; ours needs none: a partition's records are handed off in their order, one batch at a time.
    """

    app: App

    _thread: _Thread

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def ack(self, message: Any) -> bool:
        del message
        return False

    def handed_off(self, message: Any) -> None:
        """All that follows from this record, and from those before it in its partition, is durable."""
        message.acked = False
        super().ack(message)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.app.writes_done()
        await super().on_partitions_revoked(revoked)

    def standing(self, names: frozenset[str]) -> tuple[dict[str, int], dict[str, float], int]:
        """Of these topics' assigned partitions: records left, seconds of the oldest in hand, committed offsets."""
        left: dict[str, int] = {}
        age_s: dict[str, float] = {}
        done, now = 0, time.time()
        for tp in self.assignment():
            if tp.topic not in names:
                continue
            committed = self._committed_offset.get(tp) or 0
            done += committed
            left[tp.topic] = left.get(tp.topic, 0) + max(0, (self.highwater(tp) or 0) - committed)
        for message in list(self._unacked_messages):
            if message.timestamp and message.topic in names:
                age_s[message.topic] = max(age_s.get(message.topic, 0.0), now - message.timestamp)
        return left, age_s, done

    async def perform_seek(self) -> None:
        """Read on at the committed offsets; at the beginning where there is none, which Faust leaves wherever it was.

        Changelogs stay where the recovery has read to.
        """
        wanted = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        committed = await self._thread.seek_to_committed_or_beginning(wanted)
        self._committed_offset.update(committed)
        self._read_offset.update(committed)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps need no entry here."""

    def _new_offset(self, tp: TP) -> int | None:
        acked: list[int] = self._acked[tp]
        if not acked:
            return None
        last = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1


class _Transport(driver.Transport):
    Consumer = _Consumer


class App(faust.App):
    """A Faust app that knows why it stopped, whether its partitions are assigned, and whether they surely still are."""

    failure: BaseException | None = None
    kafka: KafkaSettings
    progress: Progress
    lease: Lease
    stop_wanted: asyncio.Event | None = None
    _partitions_seen = False
    _writes = 0

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    @cached_property
    def flow_control(self) -> FlowControlEvent:
        """Flow into the streams' queues."""
        return _Flow(loop=self.loop)

    @property
    def missing(self) -> list[str]:
        """What this role lacks to do its work: partitions, or progress with those it has."""
        return [name for name, bad in (("partitions", not self.assigned), ("progress", self.progress.stalled)) if bad]

    @property
    def assigned(self) -> bool:
        """Whether partitions are assigned and recovered, so records flow."""
        return bool(self.started and not self.rebalancing and not self.in_recovery and self._partitions_seen)

    def fail(self, error: BaseException) -> None:
        """Stop the process with a failure: offsets in hand stay uncommitted and the records come back."""
        if self.failure is None:
            self.failure = error
            logger().error("stopping: what was promised could not be kept", action="crash", error=type(error).__name__)
            if self.stop_wanted is not None:
                self.stop_wanted.set()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Wait until our partitions are surely ours and recovered, then hold up the next rebalance during the block.

        What was in hand when a rebalance began goes on only after it, and is cancelled where its partition went away.
        """
        while self.rebalancing or not self.lease.holds():
            await asyncio.sleep(LOOK_S)
        self._writes += 1
        try:
            yield
        finally:
            self._writes -= 1

    async def writes_done(self) -> None:
        """Wait for the writes under way, up to ``WRITES_S``: the next owner has to see them when it recovers."""
        end = time.monotonic() + WRITES_S
        while self._writes and time.monotonic() < end:
            await asyncio.sleep(LOOK_S / 4)


def create_app(name: str, kafka: KafkaSettings, *, datadir: str) -> App:
    """An app named ``name``, as its consumer group. Connects nothing; topics are declared elsewhere, not here."""
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
    app.lease = Lease(app.conf.broker_session_timeout, time.monotonic)
    app.progress = Progress()

    @app.on_partitions_assigned.connect
    async def seen(*_: Any, **__: Any) -> None:
        app._partitions_seen = True  # noqa: SLF001 - our own class

    return app


def topic(app: App, name: str) -> Any:
    """A topic of raw keys and values: records are decoded in our code, where a bad one can be dead-lettered."""
    return app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


def ack(event: Any) -> None:
    """The event is handed off: its offset may be committed."""
    event.app.consumer.handed_off(event.message)


def crash(app: App, error: BaseException) -> None:
    """Stop the process with a failure: offsets in hand stay uncommitted and the records come back."""
    app.fail(error)


async def serve(app: App) -> None:
    """Run the app until SIGTERM or SIGINT, then leave within seconds.

    Raises SystemExit(1) after :func:`crash`, and where Faust itself gave up or did not start.
    """
    stop = asyncio.Event()
    app.stop_wanted = stop
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True, daemon=False, loop=loop)
    worker.spinner = None  # it writes to the terminal
    worker.install_signal_handlers = lambda: None  # type: ignore[method-assign]  # SIGTERM is ours
    tasks = [asyncio.create_task(_run(app, worker)), asyncio.create_task(stop.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if tasks[0].done() and (error := tasks[0].exception()) is not None:
        app.fail(error)
    for task in tasks:
        task.cancel()
    await _stop(app, worker)
    if app.failure is not None:
        raise SystemExit(1) from app.failure


async def _run(app: App, worker: faust.Worker) -> None:
    """Start, then watch until Faust ends of itself, which it never should."""
    await worker.start()
    read = frozenset(name for agent in app.agents.values() for name in agent.channel.topics)
    watching = asyncio.create_task(watch(app, app.progress, read))
    try:
        await app.wait_until_stopped()
    finally:
        watching.cancel()
    raise app.crash_reason or RuntimeError("Faust has stopped")


async def _stop(app: App, worker: faust.Worker) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await worker.stop()
    except TimeoutError:
        logger().warning("Faust did not stop in time", action="stop-timeout")
        sys.stderr.flush()
        os._exit(0 if app.failure is None else 1)  # a thread or a task of Faust's would keep the process for ever
