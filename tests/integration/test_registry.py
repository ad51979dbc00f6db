"""Kafka clients of other makes read our topics, and write commands, with nothing but the bundled registry's address."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, cast

import pytest
import uvicorn
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from fastapi import FastAPI

from ingress import registry as served
from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Message, Publisher
from schemas import codec, command, topics
from schemas.records import (
    CommandType,
    DeadLetter,
    EventType,
    PaymentCommand,
    PaymentEvent,
    PaymentResult,
    PaymentTask,
    Record,
    State,
    TaskKind,
)

if TYPE_CHECKING:
    from ops.local.stack import Stack

PREFIX = "registrytest."
"""The other tests of this broker have the topics themselves."""
PAYMENT_ID = "708dc109-baa7-5d64-8c50-df2a0f6cefae"
AT_MS = 1_764_025_200_123
BUSINESS: dict[str, Any] = {
    "payment_id": PAYMENT_ID,
    "merchant_id": "shop",
    "idempotency_key": "order-1",
    "amount_minor": 1250,
    "currency": "USD",
    "lane": "simulator",
    "accepted_at_ms": AT_MS,
}
TEXTS: dict[str, Any] = {
    "payment_method": "pm_approve",
    "description": "caf\u00e9 \U0001f600",
    "metadata": {"order": "\u6587"},
}
SENT: dict[str, Record] = {
    topics.COMMANDS: PaymentCommand(type=CommandType.CREATE, **BUSINESS, **TEXTS, expires_at_ms=AT_MS + 1000),
    topics.lane_topic("simulator"): PaymentTask(
        kind=TaskKind.CREATE, fingerprint="f" * 64, **BUSINESS, **TEXTS, attempt=2, not_before_ms=AT_MS
    ),
    topics.EVENTS: PaymentEvent(
        type=EventType.CALL_FINISHED,
        version=3,
        state=State.UNKNOWN,
        fingerprint="f" * 64,
        at_ms=AT_MS,
        sent_at_us=AT_MS * 1000 + 456,
        **BUSINESS,
        **TEXTS,
    ),
    topics.RESULTS: PaymentResult(status=State.COMPLETED, version=4, attempts=1, final_at_ms=AT_MS, **BUSINESS),
    topics.DEAD_LETTER: DeadLetter(
        reason="undecodable",
        detail="the value is not Avro",
        stage="intake",
        topic=topics.COMMANDS,
        partition=3,
        offset=17,
        original=b"\x00\xff",
        original_size=2,
        original_sha256="0" * 64,
        at_ms=AT_MS,
    ),
}


@pytest.fixture(scope="module")
def client() -> Iterator[SchemaRegistryClient]:
    """Confluent's own client, at a port that serves the registry's routes and nothing else."""
    app = FastAPI()
    app.include_router(served.routes())
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    with SchemaRegistryClient({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/registry"}) as found:
        yield found
    server.should_exit = True
    thread.join(10)
    listener.close()


def _plain(value: Any) -> Any:
    """Times as we hold them: epoch milliseconds, or microseconds where there are any."""
    if isinstance(value, dt.datetime):
        micros = (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
        return micros if micros % 1000 else micros // 1000
    return str(value) if hasattr(value, "hex") and hasattr(value, "version") else value


def _same(read: dict[str, Any], sent: Record) -> None:
    assert {name: _plain(value) for name, value in read.items()} == asdict(sent)


@pytest.mark.parametrize("topic", SENT)
def test_confluents_deserializer_reads_each_of_our_records(client: SchemaRegistryClient, topic: str) -> None:
    read = AvroDeserializer(client)(codec.encode(SENT[topic]), SerializationContext(topic, MessageField.VALUE))
    _same(read, SENT[topic])


def test_it_reads_into_a_readers_schema_of_its_own(client: SchemaRegistryClient) -> None:
    """An analyst who wants three fields of the results gets three."""
    wanted = """{"type": "record", "name": "PaymentResult", "namespace": "kifiya.payments", "fields": [
        {"name": "payment_id", "type": "string"}, {"name": "amount_minor", "type": "long"},
        {"name": "since", "type": "string", "default": "v2"}]}"""
    value = codec.encode(SENT[topics.RESULTS])
    read = AvroDeserializer(client, wanted)(value, SerializationContext(topics.RESULTS, MessageField.VALUE))
    assert {name: _plain(value) for name, value in read.items()} == {
        "payment_id": PAYMENT_ID, "amount_minor": 1250, "since": "v2",
    }  # fmt: skip


def _written(client: SchemaRegistryClient, settings: dict[str, Any]) -> bytes:
    """A command as a merchant's producer writes it, with the schema from the registry."""
    latest = client.get_latest_version("payments.commands-value").schema
    write = AvroSerializer(client, latest, conf={"auto.register.schemas": False, **settings})
    fields = {**asdict(SENT[topics.COMMANDS]), "payment_id": None, "accepted_at_ms": None}
    value: bytes | None = write(fields, SerializationContext(topics.COMMANDS, MessageField.VALUE))
    assert value is not None
    return value


@pytest.mark.parametrize("settings", [{"use.latest.version": True}, {}], ids=["latest", "looked up"])
def test_confluents_serializer_writes_a_command_that_we_read(
    client: SchemaRegistryClient, settings: dict[str, Any]
) -> None:
    found = command.check(codec.decode(_written(client, settings), PaymentCommand), lanes=frozenset({"simulator"}))
    assert replace(found, accepted_at_ms=AT_MS) == SENT[topics.COMMANDS]


def test_nobody_registers_anything(client: SchemaRegistryClient) -> None:
    write = AvroSerializer(client, '{"type": "record", "name": "Mine", "fields": []}')
    with pytest.raises(SchemaRegistryError) as refused:
        write({}, SerializationContext(topics.COMMANDS, MessageField.VALUE))
    assert refused.value.http_status_code in {404, 405}


@pytest.mark.kafka
async def test_a_foreign_consumer_and_a_foreign_producer_meet_us_on_the_broker(
    stack: Stack, client: SchemaRegistryClient
) -> None:
    kafka = KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect)
    declared = [topic for topic in topics.declare(["simulator"]) if topic.name in SENT]
    await create_topics(kafka, [replace(topic, name=PREFIX + topic.name, partitions=1) for topic in declared])
    ours = [
        Message(PREFIX + name, b"k", codec.encode(record)) for name, record in SENT.items() if name != topics.COMMANDS
    ]
    async with Publisher(kafka) as publisher:
        await publisher.publish(ours)
    await asyncio.to_thread(_write_and_read, stack.kafka_bootstrap, client)


def _write_and_read(bootstrap: str, client: SchemaRegistryClient) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(PREFIX + topics.COMMANDS, _written(client, {}), b"k")
    assert producer.flush(10) == 0
    read = AvroDeserializer(client)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "analysts", "enable.auto.commit": False})
    consumer.assign([TopicPartition(PREFIX + name, 0, OFFSET_BEGINNING) for name in SENT])
    asked = replace(cast("PaymentCommand", SENT[topics.COMMANDS]), payment_id=None, accepted_at_ms=None)
    missing: dict[str, Record] = {**SENT, topics.COMMANDS: asked}
    deadline = time.monotonic() + 30
    try:
        while missing and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None or message.error():
                continue
            topic = str(message.topic()).removeprefix(PREFIX)
            _same(read(message.value(), SerializationContext(topic, MessageField.VALUE)), missing.pop(topic))
    finally:
        consumer.close()
    assert not missing
