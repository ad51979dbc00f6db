"""``python -m ops.bench.peers nothing|naive``: plain Faust on the same records with the settings of our roles.

``nothing`` reads and does nothing: Faust's floor. ``naive`` is the pattern of Faust's own examples,
``if k not in table: table[k] = x; await out.send()``: it neither validates nor waits for an ack, and loses payments
when it is killed. Each writes when it had seen its share of the records, and when all, into a file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import faust

from ops.kafka import faust_app
from ops.kafka.clients import KafkaSettings
from schemas import topics
from schemas.topics import Topic

IN: Final = "bench.commands"
OUT: Final = "bench.out"
TABLE: Final = "seen"
PARTITIONS: Final = 12
STOP_S: Final = 10.0
_SAME: Final = (
    "broker", "datadir", "store", "processing_guarantee", "table_standby_replicas", "topic_disable_leader",
    "topic_allow_declare", "topic_partitions", "broker_commit_interval", "broker_commit_every",
    "broker_session_timeout", "broker_heartbeat_interval", "broker_max_poll_interval", "broker_max_poll_records",
    "stream_buffer_maxsize", "stream_wait_empty", "stream_processing_timeout", "stream_recovery_delay",
    "recovery_consistency_check", "consumer_auto_offset_reset", "producer_linger", "producer_max_batch_size",
    "producer_request_timeout", "web_enabled", "worker_redirect_stdouts", "key_serializer", "value_serializer",
)  # fmt: skip


def topics_of(run: int) -> list[Topic]:
    """What the peers read and write in one run: with topics and groups of its own none has to commit to its end."""
    return [
        Topic(f"{IN}.{run}", "", PARTITIONS, {}, "what they read"),
        Topic(f"{OUT}.{run}", "", PARTITIONS, {}, "what the naive one sends on"),
        Topic(
            topics.changelog_topic(f"bench.naive.{run}", TABLE), "", PARTITIONS, {"cleanup.policy": "compact"}, "its"
        ),
    ]


class Tally:
    """Counts records; at the last one writes what they took since the end of the warm-up."""

    def __init__(self, total: int, report: Path) -> None:
        self._total = total
        self._report = report
        self._warm = max(1, total // 10)
        self._count = 0
        self._begin = self._begin_processor = 0.0

    def one(self) -> None:
        """One more."""
        self._count += 1
        if self._count == self._warm:
            self._begin, self._begin_processor = time.perf_counter(), time.process_time()
        elif self._count == self._total:
            seconds, processor_s = time.perf_counter() - self._begin, time.process_time() - self._begin_processor
            events = self._total - self._warm
            part = self._report.with_suffix(".part")
            part.write_text(json.dumps({"rate": events / seconds, "processor_us": 1e6 * processor_s / events}))
            part.rename(self._report)


def create_app(name: str, kafka: KafkaSettings, datadir: str) -> faust.App:
    """Faust as it comes, with the same settings as our roles."""
    same = faust_app.create_app(topics.INTAKE_APP, kafka, datadir=datadir).conf
    settings: dict[str, Any] = {setting: getattr(same, setting) for setting in _SAME}
    return faust.App(name, **settings, autodiscover=False)


def bind_nothing(app: faust.App, tally: Tally, run: int) -> None:
    """Read, and do nothing."""

    async def nothing(stream: Any) -> None:
        async for _ in stream:
            tally.one()

    app.agent(_topic(app, f"{IN}.{run}"), name="nothing", isolated_partitions=True)(nothing)


def bind_naive(app: faust.App, tally: Tally, run: int) -> None:
    """Deduplicate by a table, send on."""
    table = app.Table(TABLE, partitions=PARTITIONS, key_type=bytes, value_type=bytes)
    out = _topic(app, f"{OUT}.{run}")

    async def naive(stream: Any) -> None:
        async for event in stream.events():
            if event.key not in table:
                table[event.key] = b"seen"
                await out.send(key=event.key, value=event.value)
            tally.one()

    app.agent(_topic(app, f"{IN}.{run}"), name="naive", isolated_partitions=True)(naive)


def _topic(app: faust.App, name: str) -> Any:
    return app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


async def serve(app: faust.App) -> None:
    """Run until SIGTERM, and leave within seconds."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True, daemon=False, loop=loop)
    worker.spinner = None
    worker.install_signal_handlers = lambda: None  # type: ignore[method-assign]  # SIGTERM is ours
    await worker.start()
    await stop.wait()
    try:
        async with asyncio.timeout(STOP_S):
            await worker.stop()
    except TimeoutError:
        os._exit(0)  # Faust's threads would keep the process


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="peers")
    parser.add_argument("peer", choices=["nothing", "naive"])
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--run", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.WARNING)
    dialect: Any = os.environ["KAFKA_DIALECT"]
    kafka = KafkaSettings(os.environ["KAFKA_BOOTSTRAP"], dialect)

    async def run() -> None:
        app = create_app(f"bench.{arguments.peer}.{arguments.run}", kafka, os.environ["DATA_DIR"])
        bind = bind_nothing if arguments.peer == "nothing" else bind_naive
        bind(app, Tally(arguments.count, arguments.report), arguments.run)
        await serve(app)

    asyncio.run(run())


if __name__ == "__main__":
    main()
