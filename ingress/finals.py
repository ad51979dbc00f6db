"""How a request that waits learns that its payment has ended: one reader of ``payments.results`` for the whole process.

Not by asking PostgreSQL for each request (a thousand waiting would ask thousands of times a second), not by NOTIFY,
which serializes the sink's commits, and not out of ``payments.events``, which carries every create of a spike: results
come at the providers' pace. The reader is in no consumer group: each process hears of every end and keeps what it waits
for. It starts with the first request that wants to wait; where none does it costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import Counter, Gauge

from ops.kafka.clients import KafkaSettings, end_offsets
from ops.kafka.reading import partition_counts
from ops.telemetry import logger
from schemas import codec, topics
from schemas.records import PaymentResult

WAITING: Final = Gauge("kifiya_ingress_waiting", "Requests that wait for the end of their payment.")
WAITS: Final = Counter("kifiya_ingress_waits", "Waits for the end of a payment, by what came of them.", ["outcome"])

WAITERS_MAX: Final = 1000
START_S: Final = 1.0
"""How long the first request waits until the reader stands at the topic's end; its payment is published after that."""
_REST_S: Final = 1.0
_POLL_MS: Final = 500

Results = Callable[[], AsyncGenerator[tuple[bytes, bytes] | None, None]]
"""Keys and values of ``payments.results`` as they come; None once: from then on none is missed."""


class Waiter:
    """One request's wait for one payment."""

    def __init__(self) -> None:
        self._ended: asyncio.Future[PaymentResult | None] = asyncio.get_running_loop().create_future()

    def tell(self, result: PaymentResult | None) -> None:
        """The payment has ended; or None: wait no longer."""
        if not self._ended.done():
            self._ended.set_result(result)

    async def result(self, seconds: float, gone: Callable[[], Awaitable[object]]) -> PaymentResult | None:
        """The final state, or None: the time is over, the client has left (``gone``), or the process stops."""
        leaving = asyncio.ensure_future(gone())
        watched: set[asyncio.Future[Any]] = {self._ended, leaving}
        try:
            await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            await asyncio.wait({leaving})
        result = self._ended.result() if self._ended.done() else None
        WAITS.labels("ended" if result else "left" if not leaving.cancelled() else "open").inc()
        return result


class Finals:
    """Tells waiters of final states; at most ``most`` of them at a time."""

    def __init__(self, results: Results, *, most: int = WAITERS_MAX, start_s: float = START_S) -> None:
        self._results = results
        self._most = most
        self._start_s = start_s
        self._waiting: dict[bytes, set[Waiter]] = {}
        self._count = 0
        self._stopping = False
        self._live = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Let all go who wait: the process is about to end, and each payment was accepted as it says."""
        self._stopping = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.tell(None)

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def live(self) -> bool:
        """Whether every end from now on will be heard of; begins to listen where nobody had asked."""
        if self._stopping:
            return False
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        if not self._live.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._live.wait(), self._start_s)
        return self._live.is_set()

    @property
    def room(self) -> bool:
        """Whether one more may wait."""
        return self._count < self._most

    @contextmanager
    def expect(self, payment_id: str) -> Iterator[Waiter]:
        """Listen for the end of this payment, for the block: from before it is published."""
        key, waiter = payment_id.encode(), Waiter()
        self._waiting.setdefault(key, set()).add(waiter)
        self._count += 1
        WAITING.set(self._count)
        try:
            yield waiter
        finally:
            self._count -= 1
            WAITING.set(self._count)
            others = self._waiting.get(key, set())
            others.discard(waiter)
            if not others:
                self._waiting.pop(key, None)

    async def _read(self) -> None:
        while True:
            try:
                async with aclosing(self._results()) as results:
                    async for result in results:
                        if result is None:
                            self._live.set()
                        elif result[0] in self._waiting:
                            self._tell(*result)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is looked for again
                logger().warning("results cannot be read", action="results-away", error=type(error).__name__)
            self._live.clear()
            await asyncio.sleep(_REST_S)

    def _tell(self, key: bytes, value: bytes) -> None:
        try:
            result = codec.decode(value, PaymentResult)
        except codec.DecodeError:
            return
        for waiter in self._waiting[key]:
            waiter.tell(result)


async def results_of(kafka: KafkaSettings) -> AsyncGenerator[tuple[bytes, bytes] | None, None]:
    """What comes to ``payments.results`` from now on. Raises KafkaError, TimeoutError, KeyError without the topic."""
    parts = [
        TopicPartition(topics.RESULTS, number) for number in range((await partition_counts(kafka))[topics.RESULTS])
    ]
    ends = await end_offsets(kafka, parts)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        isolation_level="read_committed",
        fetch_max_wait_ms=50 if kafka.dialect == "tansu" else _POLL_MS,  # Tansu answers when it is over, whatever comes
    )
    try:
        await consumer.start()
        consumer.assign(parts)
        for part in parts:
            consumer.seek(part, ends[part])
        yield None
        while True:
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    if record.key is not None and record.value is not None:
                        yield record.key, record.value
    finally:
        await consumer.stop()
