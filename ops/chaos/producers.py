"""The load over Kafka: a producer that uses any key and partition, and one with transactions, aborted ones too."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from ops.chaos.case import Case
from ops.chaos.clients import Client
from ops.chaos.evidence import Answer, Via
from ops.chaos.wishes import Wish, Wishes
from ops.kafka.clients import KafkaSettings
from schemas import topics

ACK_S: Final = 10.0
PARTITIONS: Final = 12
TRANSACTION: Final = 5
"""Records in one."""
ABORTED: Final = 3
"""Every so many-th transaction is aborted."""
TRANSACTION_MS: Final = 10_000
"""When the broker aborts one that its producer has left open: until then it holds up all that follows it."""


class Producer:
    """A producer that is made anew when it fails: some of its errors are for ever."""

    def __init__(self, kafka: KafkaSettings, transactional_id: str | None = None) -> None:
        self._kafka = kafka
        self._id = transactional_id
        self._producer: AIOKafkaProducer | None = None
        self._making = asyncio.Lock()

    async def get(self) -> AIOKafkaProducer:
        """A producer that is started. Raises KafkaError, OSError, TimeoutError."""
        async with self._making:
            if self._producer is None:
                options: dict[str, Any] = {"enable_idempotence": self._kafka.dialect == "apache"}
                if self._id is not None:
                    options = {"transactional_id": self._id, "transaction_timeout_ms": TRANSACTION_MS}
                found = AIOKafkaProducer(
                    bootstrap_servers=self._kafka.bootstrap, acks="all", request_timeout_ms=5000, **options
                )
                try:
                    async with asyncio.timeout(ACK_S):
                        await found.start()
                except BaseException:
                    await _stop(found)
                    raise
                self._producer = found
            return self._producer

    async def drop(self) -> None:
        """Let the next one be made."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)


async def _stop(producer: AIOKafkaProducer) -> None:
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(2.0):
            await producer.stop()


_FAILURES: Final = (KafkaError, OSError, TimeoutError, RuntimeError)
"""What aiokafka raises where it is not known whether a record is stored; RuntimeError once it is closed."""


async def over_kafka(case: Case, kafka: KafkaSettings, merchants: list[str], folder: Path, stop: asyncio.Event) -> None:
    """Send single records for the case's duration, or until ``stop``: any key, any partition."""
    chance = random.Random(f"{case.seed}-kafka")  # noqa: S311 - a seed that can be had again
    client, wishes, producer = Client("kafka", folder, chance, stop), Wishes(case, "kafka", merchants), Producer(kafka)

    async def once(wish: Wish) -> Answer:
        try:
            found = await producer.get()
        except _FAILURES:
            await asyncio.sleep(0.5)
            return Answer.REFUSED
        of = client.invoke(wish, Via.KAFKA)
        try:
            async with asyncio.timeout(ACK_S):
                stored = await found.send_and_wait(
                    topics.COMMANDS, wish.record(), chance.randbytes(4), partition=chance.randrange(PARTITIONS)
                )
        except _FAILURES:
            client.learn(of, Answer.MAYBE)
            await producer.drop()
            return Answer.MAYBE
        client.learn(of, Answer.ACCEPTED, origin=[stored.topic, stored.partition, stored.offset])
        return Answer.ACCEPTED

    try:
        async with client.writing():
            await client.at_rate(
                case.workload.kafka, case.duration_s, lambda: client.insist(wishes.next(raw=True), once)
            )
    finally:
        await producer.drop()


async def in_transactions(
    case: Case, kafka: KafkaSettings, merchants: list[str], folder: Path, stop: asyncio.Event
) -> None:
    """Send transactions of fresh creates one after another; what is aborted must never be charged."""
    if not case.workload.transactions:
        return
    chance = random.Random(f"{case.seed}-transactions")  # noqa: S311 - a seed that can be had again
    client, wishes = Client("transactions", folder, chance, stop), Wishes(case, "transactions", merchants)
    producer = Producer(kafka, f"chaos-{case.seed}")
    count = 0
    turn = asyncio.Lock()

    async def one() -> None:
        nonlocal count
        async with turn:
            count += 1
            await _transaction(
                client, producer, [wishes.fresh() for _ in range(TRANSACTION)], abort=count % ABORTED == 0
            )

    try:
        async with client.writing():
            await client.at_rate(case.workload.transactions, case.duration_s, one)
    finally:
        await producer.drop()


async def _transaction(client: Client, producer: Producer, wishes: list[Wish], *, abort: bool) -> None:
    """One transaction. What fails before its commit is asked for leaves it aborted; what fails after that, maybe."""
    asked: list[str] = []
    committing = False
    try:
        found = await producer.get()
        async with asyncio.timeout(ACK_S):
            await found.begin_transaction()
            asked = [client.invoke(wish, Via.KAFKA) for wish in wishes]
            pending = [await found.send(topics.COMMANDS, wish.record(), wish.key.encode()) for wish in wishes]
            stored = await asyncio.gather(*pending)
            committing = not abort
            await (found.abort_transaction() if abort else found.commit_transaction())
    except _FAILURES:
        for of in asked:
            client.learn(of, Answer.MAYBE if committing else Answer.REFUSED, aborted=not committing)
        await producer.drop()
        return
    for of, place in zip(asked, stored, strict=True):
        answer = Answer.REFUSED if abort else Answer.ACCEPTED
        client.learn(of, answer, origin=[place.topic, place.partition, place.offset], aborted=abort)
