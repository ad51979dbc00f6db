"""Records that are published in the same turn of the loop share a batch of their partition.

A batch costs the producer about as much as a record by itself does: a future, a look-up of the partitions, a place in
the queue. Each partition's batch waits by itself: one without a leader holds up no other.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from ops.kafka.message import Message
from ops.kafka.partitions import home

SMALL: Final = 128 * 1024
"""Bytes of a record's value that fit a batch with room to spare."""

Answer = asyncio.Future[BaseException | None]
"""None once every replica in sync has the record, else what the broker or the client said."""
_Pair = tuple[Message, Answer]


class Together:
    """Gathers what comes in one turn of the loop, and sends it in the next one."""

    def __init__(self) -> None:
        self._gathered: list[_Pair] = []
        self._sending: set[asyncio.Task[None]] = set()

    def post(self, producer: AIOKafkaProducer, message: Message) -> Answer:
        """Send a record of at most SMALL bytes. The producer fails what it cannot send within its request's time."""
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        if not self._gathered:
            loop.call_soon(self._go, producer)
        self._gathered.append((message, answer))
        return answer

    def _go(self, producer: AIOKafkaProducer) -> None:
        gathered, self._gathered = self._gathered, []
        by_topic: defaultdict[str, list[_Pair]] = defaultdict(list)
        for pair in gathered:
            by_topic[pair[0].topic].append(pair)
        for topic, pairs in by_topic.items():
            self._start(self._spread(producer, topic, pairs))

    def _start(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _spread(self, producer: AIOKafkaProducer, topic: str, pairs: list[_Pair]) -> None:
        """Over the partitions of a topic."""
        try:
            count = len(await producer.partitions_for(topic))
        except BaseException as error:
            _tell(pairs, error)
            if not isinstance(error, Exception):
                raise
            return
        groups: defaultdict[int, list[_Pair]] = defaultdict(list)
        for pair in pairs:
            groups[home(pair[0], count)].append(pair)
        for partition, own in groups.items():
            self._start(_send(producer, topic, partition, own))


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, pairs: list[_Pair]) -> None:
    """Have one partition's records stored, in order, in a batch or more."""
    sent: list[tuple[list[_Pair], asyncio.Future[Any]]] = []
    try:
        rest = pairs
        while rest:
            batch, own, rest = _filled(producer, rest)
            sent.append((own, await producer.send_batch(batch, topic, partition=partition)))
        for own, stored in sent:
            error: BaseException | None = None
            try:
                await stored
            except Exception as refusal:  # noqa: BLE001 - told, not handled
                error = refusal
            _tell(own, error)
    except BaseException as error:
        _tell(pairs, error)
        if not isinstance(error, Exception):
            raise


def _filled(producer: AIOKafkaProducer, pairs: list[_Pair]) -> tuple[Any, list[_Pair], list[_Pair]]:
    """A batch, closed: an open one lingers, and others' records join it. What is in it, and what is not."""
    batch, count = producer.create_batch(), 0
    for message, _ in pairs:
        headers = list(message.headers)
        if batch.append(timestamp=None, key=message.key, value=message.value, headers=headers) is None:
            break
        count += 1
    batch.close()
    if not count:
        raise KafkaError("a record fits no batch")
    return batch, pairs[:count], pairs[count:]


def _tell(pairs: list[_Pair], error: BaseException | None) -> None:
    for _, answer in pairs:
        if not answer.done():
            answer.set_result(error)
