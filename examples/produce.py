"""Payments straight to Kafka: a durable producer, and what became of each from the topic of results.

``python produce.py [COUNT]``, with KAFKA_BOOTSTRAP, KIFIYA_MERCHANT and KIFIYA_URL set. To send the same again is safe.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

COMMANDS, RESULTS = "payments.commands", "payments.results"


def produce(bootstrap: str, commands: list[dict[str, Any]]) -> None:
    """Send commands; returns when all are acknowledged by every replica. Raises KafkaException: then send all again."""
    failed: list[Any] = []

    def told(error: Any, _: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "delivery.timeout.ms": 30_000})
    for command in commands:
        # Any key will do: the gateway moves a record to its payment's partition. This one keeps a payment's in order.
        producer.produce(COMMANDS, json.dumps(command).encode(), key=command["idempotency_key"], on_delivery=told)
        producer.poll(0)
    if producer.flush(40) or failed:
        raise KafkaException(failed[0] if failed else "not all were acknowledged in time")


def results(bootstrap: str, registry: str, wanted: set[str], within_s: float) -> dict[str, dict[str, Any]]:
    """The results of these idempotency keys, from the topic's beginning on: it is compacted, one a payment."""
    read = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "example", "enable.auto.commit": False})
    found: dict[str, dict[str, Any]] = {}
    try:
        parts = consumer.list_topics(RESULTS, timeout=10).topics[RESULTS].partitions
        consumer.assign([TopicPartition(RESULTS, number, OFFSET_BEGINNING) for number in parts])
        end = time.monotonic() + within_s
        while wanted - found.keys() and time.monotonic() < end:
            message = consumer.poll(0.5)
            if message is None or message.error() or message.value() is None:
                continue
            result: Any = read(message.value(), SerializationContext(RESULTS, MessageField.VALUE))
            if result["idempotency_key"] in wanted:
                found[result["idempotency_key"]] = result
    finally:
        consumer.close()
    return found


def main(count: str = "3") -> None:
    """Send payments, every third of them to be declined, and print how each ended."""
    bootstrap, merchant = os.environ["KAFKA_BOOTSTRAP"], os.environ["KIFIYA_MERCHANT"]
    commands = [
        {
            "type": "create",
            "merchant_id": merchant,
            "idempotency_key": f"order-{uuid.uuid4()}",
            "amount": "12.50",
            "currency": "USD",
            "payment_method": "pm_approve" if number % 3 else "pm_decline",
            "metadata": {"example": "kafka"},
        }
        for number in range(1, int(count) + 1)
    ]
    produce(bootstrap, commands)
    produce(bootstrap, commands[:1])  # a duplicate is dropped: same key, same payment
    keys = {str(command["idempotency_key"]) for command in commands}
    found = results(bootstrap, f"{os.environ['KIFIYA_URL']}/registry", keys, within_s=60)
    for command in commands:
        result = found.get(str(command["idempotency_key"]))
        print(command["payment_method"], result["status"] if result else "no result yet")
    if keys - found.keys():
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:2])
