"""Faust as this gateway uses it: an app whose commits never skip a record, tables that recover by a rule, a clean end.

Rules (measured): streams run with ``noack`` and ack each event after its handoff, in offset order; what a table has is
durable in its changelog before it stands in the local store; nothing pauses a partition; no exception leaves an agent.
What the streams are given, and what is committed: ``ops.kafka.consumer``.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import faust
from mode.utils.queues import FlowControlEvent

from ops.kafka.clients import KafkaSettings
from ops.kafka.consumer import Flow, Transport
from ops.kafka.lease import Lease
from ops.kafka.progress import Progress, watch
from ops.telemetry import logger

STOP_S: Final = 10.0
"""How long a clean end may take; then the process ends without it, which is as safe."""
LOOK_S: Final = 0.02
WRITES_S: Final = 5.0


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
        return Transport(self.conf.broker_consumer, self)

    @cached_property
    def flow_control(self) -> FlowControlEvent:
        """Flow into the streams' queues."""
        return Flow(loop=self.loop)

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


class _Raw(faust.Schema[bytes, bytes]):
    """Keys and values as they are. Faust's own way to them asks its codecs four times for each record."""

    def compile(self, app: Any, **_: Any) -> Any:
        """What makes an event of a message; nothing can go wrong."""

        async def decode(message: Any, *, propagate: bool = False) -> faust.Event:
            del propagate
            return faust.Event(app, message.key, message.value, message.headers, message)

        return decode


def topic(app: App, name: str) -> Any:
    """A topic of raw keys and values: records are decoded in our code, where a bad one can be dead-lettered."""
    raw = _Raw(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    return app.topic(name, schema=raw)


def ack(event: Any) -> None:
    """The event is handed off: its offset may be committed."""
    event.app.consumer.handed_off(event.message)


def crash(app: App, error: BaseException) -> None:
    """Stop the process with a failure: offsets in hand stay uncommitted and the records come back."""
    app.fail(error)


@asynccontextmanager
async def beside(app: App, *works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have these run beside the app for the block. An error in one of them, which none lets out, stops the process."""

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger().error("what runs beside the agents has failed", action="beside-failed", exc_info=error)
            app.fail(error)

    tasks = [asyncio.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.remove_done_callback(ended)
            task.cancel()


async def serve(app: App) -> None:
    """Run the app until SIGTERM or SIGINT, then leave within seconds.

    Raises SystemExit(1) after :func:`crash`, and where Faust itself gave up or did not start.
    """
    gc.collect()
    gc.freeze()  # what is imported stays: the collector need not walk through it again and again
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
