"""The publisher over a producer in memory: what many records at once become, and what of them is told."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiokafka.errors import (
    InvalidProducerIdMapping,
    KafkaError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    UnknownProducerId,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from ops.kafka import clients
from ops.kafka.clients import (
    KafkaSettings,
    Message,
    Publisher,
    PublishError,
    PublishTimedOut,
    RecordRefused,
    partition_for,
)

PARTITIONS = 3
LARGEST_BATCH = 20_000

Stored = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]


@dataclass
class Producer:
    """Stores what it is given, but for topics that it refuses or does not ack."""

    stored: dict[tuple[str, int], list[Stored]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    silent: str = ""
    batches: int = 0
    answers: list[asyncio.Future[Any]] = field(default_factory=list)
    started: bool = False
    stopped: bool = False

    async def start(self) -> None:
        if KafkaError in map(type, self.errors.values()):
            raise KafkaError
        self.started = True

    async def stop(self) -> None:
        self.stopped = True

    async def partitions_for(self, topic: str) -> set[int]:
        if topic == "unknown":
            raise KafkaError
        return set(range(PARTITIONS))

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(LARGEST_BATCH, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        assert batch.closed(), "an open batch lingers, and others' records join it"
        self.batches += 1
        assert len(batch._build()) <= LARGEST_BATCH
        records = [
            (record.key, record.value, tuple(record.headers))
            for found in iter(MemoryRecords(bytes(batch._build())).next_batch, None)
            for record in found
        ]
        return self._answer(topic, partition, records)

    async def send(
        self, topic: str, value: bytes, key: bytes, partition: int | None, *, headers: list[tuple[str, bytes]]
    ) -> asyncio.Future[Any]:
        where = partition_for(key, PARTITIONS) if partition is None else partition
        return self._answer(topic, where, [(key, value, tuple(headers))])

    def _answer(self, topic: str, partition: int, records: list[Stored]) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        if topic in self.errors:
            answer.set_exception(self.errors[topic])
        elif topic != self.silent:
            self.stored.setdefault((topic, partition), []).extend(records)
            answer.set_result(None)
        return answer


@pytest.fixture
def producer() -> Producer:
    return Producer()


@pytest.fixture
def publisher(producer: Producer) -> Publisher:
    found = Publisher(KafkaSettings("nowhere:1"))
    found._producer = cast("Any", producer)
    return found


def records(topic: str, count: int, size: int = 8) -> list[Message]:
    return [
        Message(topic, b"key-%d" % (n % 7), struct.pack(">q", n) + bytes(size), (("n", b"%d" % n),))
        for n in range(count)
    ]


async def test_many_records_are_stored_in_order_where_their_keys_belong(
    producer: Producer, publisher: Publisher
) -> None:
    sent = [message for pair in zip(records("a", 200), records("b", 200), strict=True) for message in pair]
    sent += [Message("a", b"gone", None, partition=2), Message("b", b"fixed", b"1", partition=0)]
    await publisher.publish(sent)
    for (topic, partition), found in producer.stored.items():
        home = [each for each in sent if each.topic == topic]
        assert found == [
            (each.key, each.value, each.headers)
            for each in home
            if (partition_for(each.key or b"", PARTITIONS) if each.partition is None else each.partition) == partition
        ]
    assert sum(map(len, producer.stored.values())) == len(sent)
    assert producer.batches <= 2 * PARTITIONS


async def test_few_and_many_come_to_the_same(producer: Producer, publisher: Publisher) -> None:
    sent = records("a", clients.MANY)
    await publisher.publish(sent)
    together, producer.stored = producer.stored, {}
    for message in sent:
        await publisher.publish([message])
    assert producer.stored == together


async def test_what_is_too_much_for_one_batch_becomes_several(producer: Producer, publisher: Publisher) -> None:
    sent = [Message("a", b"k", each.value, each.headers) for each in records("a", 100, 1000)]
    await publisher.publish(sent)
    (found,) = producer.stored.values()
    assert [value for _, value, _ in found] == [each.value for each in sent]
    assert producer.batches > 100 * 1000 / LARGEST_BATCH


async def test_records_without_a_key_go_anywhere(producer: Producer, publisher: Publisher) -> None:
    await publisher.publish([Message("a", None, b"%d" % n) for n in range(200)])
    assert len(producer.stored) == PARTITIONS


async def test_a_large_record_is_sent_on_its_own(producer: Producer, publisher: Publisher) -> None:
    await publisher.publish([*records("a", 50), Message("a", b"large", bytes(clients.SMALL + 1))])
    assert not producer.batches
    assert sum(map(len, producer.stored.values())) == 51


@pytest.mark.parametrize("count", [1, clients.MANY])
async def test_a_refusal_is_told_once_all_have_been_answered(
    count: int, producer: Producer, publisher: Publisher
) -> None:
    producer.errors["b"] = MessageSizeTooLargeError()
    with pytest.raises(RecordRefused) as refused:
        await publisher.publish([*records("a", count), *records("b", count), *records("c", count)])
    assert refused.value.index == count
    assert {topic for topic, _ in producer.stored} == {"a", "c"}


@pytest.mark.parametrize("count", [1, clients.MANY])
async def test_one_missing_ack_leaves_all_unknown(count: int, producer: Producer, publisher: Publisher) -> None:
    producer.errors["b"] = NotEnoughReplicasError()
    with pytest.raises(PublishTimedOut):
        await publisher.publish([*records("a", count), *records("b", count)])
    producer.errors.clear()
    producer.silent = "b"
    with pytest.raises(PublishTimedOut):
        await publisher.publish([*records("a", count), *records("b", count)], 0.05)


@pytest.mark.parametrize("count", [1, 2])
async def test_an_answer_that_the_producer_takes_back_is_no_ack(
    count: int, producer: Producer, publisher: Publisher
) -> None:
    producer.silent = "b"
    publishing = asyncio.create_task(publisher.publish(records("b", count)))
    while len(producer.answers) < count:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    for each in producer.answers:
        each.cancel()
    with pytest.raises(PublishTimedOut):
        await publishing


@pytest.mark.parametrize("count", [1, 2])
async def test_whoever_is_cancelled_while_it_waits_for_an_ack_is_cancelled(
    count: int, producer: Producer, publisher: Publisher
) -> None:
    producer.silent = "b"
    publishing = asyncio.create_task(publisher.publish(records("b", count)))
    for _ in range(5):
        await asyncio.sleep(0)  # it waits for the broker's answer
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing


async def test_a_topic_that_nobody_knows_is_no_ack(publisher: Publisher) -> None:
    with pytest.raises(PublishTimedOut):
        await publisher.publish(records("unknown", clients.MANY))


GAPS = [
    OutOfOrderSequenceNumber(), UnknownProducerId(), InvalidProducerIdMapping(), ProducerFenced(),
    LeaderNotAvailableError(), NotLeaderForPartitionError(),
]  # fmt: skip


@pytest.mark.parametrize("error", GAPS)
@pytest.mark.parametrize("count", [1, 100])
async def test_a_producer_whose_numbers_have_a_gap_is_replaced(
    producer: Producer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, error: Exception, count: int
) -> None:
    """It would fail on that partition for ever, and whatever waits for its ack would stand still for ever."""
    away, new = Producer(errors={"": KafkaError()}), Producer()
    coming = [away, new]
    monkeypatch.setattr(clients, "AIOKafkaProducer", lambda **_: coming.pop(0))
    producer.errors["a"] = error
    with pytest.raises(PublishTimedOut, match=type(error).__name__):
        await publisher.publish(records("b", count) + records("a", count))
    with pytest.raises(PublishTimedOut, match="KafkaError"):  # no broker to start the next one at
        await publisher.publish(records("a", count))
    assert (away.stopped, producer.stopped) == (True, False)
    await asyncio.gather(*(publisher.publish(records("a", count)) for _ in range(3)))
    assert sum(map(len, new.stored.values())) == 3 * count
    assert (new.started, new.stopped, producer.stopped, coming) == (True, False, True, [])


async def test_what_a_producer_says_that_was_replaced_meanwhile_is_not_held_against_the_new_one(
    producer: Producer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(producer, "_answer", lambda *_: answer)
    asking = asyncio.create_task(publisher.publish(records("a", 1)))
    await asyncio.sleep(0)
    publisher._producer = cast("Any", Producer())
    answer.set_exception(OutOfOrderSequenceNumber())
    with pytest.raises(PublishTimedOut):
        await asking
    assert not publisher._gap


async def test_a_producer_whose_record_was_not_stored_for_another_reason_goes_on(
    producer: Producer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(clients, "AIOKafkaProducer")
    producer.errors |= {"a": NotEnoughReplicasError(), "b": MessageSizeTooLargeError()}
    for topic in producer.errors:
        with pytest.raises(PublishError):
            await publisher.publish(records(topic, 1))
    await publisher.publish(records("c", 1))


async def test_a_stop_waits_for_a_renewal_and_leaves_no_producer_behind(
    producer: Producer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, go_on = Producer(), asyncio.Event()
    monkeypatch.setattr(clients, "AIOKafkaProducer", lambda **_: new)
    monkeypatch.setattr(new, "start", go_on.wait)
    publisher._gap = True
    asking = asyncio.create_task(publisher.publish(records("a", 1)))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(publisher.stop())
    for _ in range(5):
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait_for(stopping, 5)
    assert (new.stopped, producer.stopped, publisher._producer) == (True, True, None)
    await asyncio.wait({asking})


async def test_a_gap_behind_another_error_renews_the_producer_too(
    producer: Producer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = Producer()
    monkeypatch.setattr(clients, "AIOKafkaProducer", lambda **_: fresh)
    producer.errors = {"a": NotEnoughReplicasError(), "b": OutOfOrderSequenceNumber()}
    with pytest.raises(PublishTimedOut, match="NotEnoughReplicas"):
        await publisher.publish([Message("a", b"k", b"1"), Message("b", b"k", b"1")])
    await publisher.publish([Message("b", b"k", b"2")])
    assert sum(map(len, fresh.stored.values())) == 1
    await publisher.stop()
