"""Faust's consumer, mended: what a stream is given follows on from the committed offset without a hole.

Kafka's client knows one position per partition; a poll moves it, whoever the records reach. Between a rebalance and the
end of the recovery Faust polls, drops what it has no use for and seeks, all at once. Records dropped after the seek are
lost, and so are records whose elders were dropped before it: they are handled first, committed, and the commit passes
their elders. Measured, with kill -9 in the right moment: whole polls never handled. So here

- a poll and a seek take turns, and what a poll found knows which seek it follows;
- a seek for the streams makes everything read before it void: it is neither given nor, if it was given, committed;
- a poll's partitions are a snapshot: Faust's live set may become empty meanwhile, which to the client means all;
- a record waits for room outside the queue's own ``put``, which Faust leaves behind when it gives up: it comes later.

Faust's loops around each record are replaced as well: they cost more than the record's own work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.group_coordinator import HeartbeatRequest, SyncGroupRequest
from aiokafka.errors import RebalanceInProgressError
from faust.tables.recovery import RebalanceAgain
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.queues import FlowControlEvent

from ops.kafka.clients import end_offsets

if TYPE_CHECKING:
    from ops.kafka.faust_app import App

POLL_S: Final = 0.1
"""How long a poll waits for records; a seek waits for its turn as long."""
SEEK_S: Final = 60.0
"""How long the committed offsets may take; then the process ends, and with it the wait."""
ROOM_S: Final = 0.002
TURN: Final = 100
"""Records given before the agents have their turn."""
TANSU_WAIT_MS: Final = 50
"""Tansu answers a fetch when its wait is over, whatever has come in meanwhile."""
_STILL_A_MEMBER: Final = frozenset({0, RebalanceInProgressError.errno})

Found = tuple[Mapping[TP, list[Any]], int]
"""Records by partition, and the number of the last seek before them."""


class Thread(driver.AIOKafkaConsumerThread):
    """Reads committed records only, asks for the true ends of the changelogs, and keeps the lease."""

    app: App
    consumer: Consumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn = asyncio.Lock()
        self._sought = 0

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - Faust offers it with transactions only
        if self.app.conf.kifiya_kafka.dialect == "tansu":
            consumer._fetch_max_wait_ms = TANSU_WAIT_MS  # noqa: SLF001 - Faust's 1500 ms are fixed
        return consumer

    async def on_start(self) -> None:
        """Start, and renew the lease from now on with each heartbeat that is answered."""
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

    async def poll(self, partitions: frozenset[TP]) -> Found:
        """Records of these partitions, there are some, and the number of the last seek before them."""
        found: Found = await self.call_thread(self._poll, partitions)
        return found

    async def _poll(self, partitions: frozenset[TP]) -> Found:
        consumer = self._ensure_consumer()
        async with self._turn:
            most = consumer._max_poll_records  # noqa: SLF001
            records = await self._fetch_records(consumer, set(partitions), timeout=POLL_S, max_records=most)
            return records, self._sought

    async def seek_streams(self, partitions: set[TP], number: int) -> dict[TP, int | None]:
        """Seek to the committed offsets, to the beginning where there is none (None in the answer)."""
        found: dict[TP, int | None] = await self.call_thread(self._seek_streams, partitions, number)
        return found

    async def _seek_streams(self, partitions: set[TP], number: int) -> dict[TP, int | None]:
        consumer = self._ensure_consumer()
        wanted = {TopicPartition(tp.topic, tp.partition): tp for tp in partitions}
        async with self._turn:
            known = await consumer._coordinator.fetch_committed_offsets(list(wanted))  # noqa: SLF001 - one request for all
            committed = {tp: known[there].offset if there in known else -1 for there, tp in wanted.items()}
            fresh = [there for there, tp in wanted.items() if committed[tp] <= 0]
            begin = await consumer.beginning_offsets(fresh) if fresh else {}  # its own reset waits for a fetch to end
            for there, tp in wanted.items():
                consumer.seek(there, committed[tp] if committed[tp] > 0 else begin[there])
            self._sought = number
        return {tp: offset if offset > 0 else None for tp, offset in committed.items()}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Seek changelogs to where their recovery begins."""
        await self.call_thread(self._seek_changelogs, partitions, self.consumer.next_seek())

    async def _seek_changelogs(self, partitions: Mapping[TP, int], number: int) -> None:
        async with self._turn:
            await self._seek_wait(self._ensure_consumer(), partitions)
            self._sought = number

    async def _highwaters(self, partitions: Any) -> Mapping[TP, int]:
        wanted = [TopicPartition(tp.topic, tp.partition) for tp in partitions]
        ends = await end_offsets(self.app.conf.kifiya_kafka, wanted)
        return {TP(tp.topic, tp.partition): end for tp, end in ends.items()}


class Flow(FlowControlEvent):
    """Lets records flow again without throwing away what is in the queues.

    Faust empties them when it resumes after a recovery; records that came in just before were read after the seek to
    the committed offsets, so nobody would read them again. What is stale was cleared when the flow was suspended.
    """

    def resume(self) -> None:
        """Let records flow."""
        self._suspend.clear()
        self._resume.set()


class _Unknown(dict[TP, int | None]):
    """Faust's memory of what was read, by which it drops what it takes for read before: nothing is, here."""

    def __missing__(self, tp: TP) -> None:
        return None

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        pass

    def update(self, *_: Any, **__: Any) -> None:
        pass


class Consumer(driver.Consumer):
    """Commits what we have handed off, and nothing that Faust thinks is done.

    Faust acks a record when an agent's loop leaves it, whatever the reason: an exception, a cancellation, the end
    of a batch's generator. All these are ignored. Its own bookkeeping wants consecutive offsets and freezes at a
    transaction's markers; ours needs none: a partition's records are given without a hole since the last seek, and
    handed off in their order, one batch at a time.
    """

    app: App

    _thread: Thread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._seeks = 0
        self._reading: int | None = None
        self._revoked = False
        super().__init__(*args, **kwargs)
        self._read_offset = _Unknown()

    def _new_consumer_thread(self) -> Thread:
        return Thread(self, loop=self.loop, beacon=self.beacon)

    def next_seek(self) -> int:
        """The number of the next seek: what was found before it counts no more."""
        self._seeks += 1
        return self._seeks

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's own
        """Poll once, and give what follows on from the last seek. ``timeout`` is Faust's, and too long to wait."""
        del timeout
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # as Faust does
        wanted = frozenset(self._get_active_partitions())
        if not wanted:
            await self.sleep(POLL_S)
            return
        records, seek = await self._thread.poll(wanted)
        for tp in records:
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        for tp, record in self.scheduler.iterate(records):
            if self.should_stop or not self.flow_active:
                return  # a recovery follows, and seeks
            if self._counts(tp, seek):
                message = self._to_message(tp, record)
                message.seek = seek  # type: ignore[attr-defined]
                yield tp, message

    def _counts(self, tp: TP, seek: int) -> bool:
        return seek == (self._seeks if self._is_changelog_tp(tp) else self._reading)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Poll and give until the fetcher stops. Faust's own loop makes four tasks for each record."""
        conductor: Any = self.app.topics
        flow: Any = self.app.flow_control
        given = 0
        try:
            while not (self.should_stop or fetcher.should_stop):
                async for tp, message in self.getmany(POLL_S):
                    if (given := given + 1) % TURN == 0:
                        await asyncio.sleep(0)
                    channels = conductor._tp_index[tp]  # noqa: SLF001 - the queues that its callback puts into
                    while not flow.is_active() or any(channel.queue.full() for channel in channels):
                        if self.should_stop or not self.flow_active:
                            break
                        await asyncio.sleep(ROOM_S)
                    if self.flow_active and self._counts(tp, message.seek):
                        await self.callback(message)
                if self._n_acked >= (self._commit_every or 1):
                    self._n_acked = 0
                    await self.commit()
                await asyncio.sleep(0)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise

    def takes(self, message: Any) -> bool:
        """Whether a record out of a queue may be handled; then it is in hand. Faust's streams ask themselves."""
        current = message.generation_id == self.app.consumer_generation_id and self.app.flow_control.is_active()
        if current and not message.tracked:
            message.tracked = True
            self._unacked_messages.add(message)
        return current

    def ack(self, message: Any) -> bool:
        """Nothing: what Faust acks is not what we have handed off."""
        del message
        return False

    def handed_off(self, message: Any) -> None:
        """All that follows from this record, and from those before it in its partition, is durable.

        What was read before the last seek is void, as its elders may not have been read: it will come again.
        """
        if self._counts(message.tp, message.seek):
            message.acked = False
            super().ack(message)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Wait for the writes under way; what was read is void from then on."""
        self._revoked = True
        await self.app.writes_done()
        self._reading = None
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin the recovery, at whose end :meth:`perform_seek` comes."""
        self._revoked = False
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Read on at the committed offsets; at the beginning where there is none, which Faust leaves wherever it was.

        Changelogs stay where the recovery has read to. Raises RebalanceAgain where a rebalance has begun meanwhile,
        and TimeoutError.
        """
        tables: Any = self.app.tables
        recovering = tables.recovery._generation_id  # noqa: SLF001 - Faust checks it, but an await too early
        if self._revoked or recovering != self.app.consumer_generation_id:
            raise RebalanceAgain
        wanted = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        for tp in wanted:
            self._committed_offset.pop(tp, None)
        self._reading = number = self.next_seek()
        async with asyncio.timeout(SEEK_S):
            committed = await self._thread.seek_streams(wanted, number)
        for tp, offset in committed.items():
            if self._committed_offset.get(tp) is None:
                self._committed_offset[tp] = offset

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


class Transport(driver.Transport):
    """The transport that makes this consumer."""

    Consumer = Consumer
