"""An analyst's way through the gateway's data, step by step: the SQL view, then the results straight from Kafka.

``python analyst.py``, with DATABASE_URL, KAFKA_BOOTSTRAP and KIFIYA_URL set. It only reads.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

RESULTS = "payments.results"

# %% 1. The questions of analyst.sql, each under its name


def questions() -> dict[str, tuple[str, str]]:
    """Name to what is asked and its query."""
    found = {}
    for part in (Path(__file__).parent / "analyst.sql").read_text().split("\n\n")[1:]:
        head, _, query = part.partition("\n")
        name, _, asked = head.removeprefix("-- ").partition(": ")
        found[name] = (asked, query)
    return found


async def from_sql(url: str) -> Counter[str]:
    """Print each answer; how many payments there are of each final state."""
    connection = await asyncpg.connect(url, timeout=10, server_settings={"default_transaction_read_only": "on"})
    try:
        for name, (asked, query) in questions().items():
            rows = await connection.fetch(query)
            print(f"\n{name}: {asked}")
            for row in rows:
                print("  " + "  ".join(f"{column}={value}" for column, value in row.items()))
        states = await connection.fetch("SELECT state, count(*) AS n FROM payment_status WHERE is_final GROUP BY state")
        return Counter({row["state"]: row["n"] for row in states})
    finally:
        await connection.close()


# %% 2. The same from the topic of results: compacted, one record a payment, the highest version counts


def from_kafka(bootstrap: str, registry: str) -> list[dict[str, Any]]:
    """All results that the topic holds now."""
    read = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "analyst", "enable.auto.commit": False,
        "enable.partition.eof": True,
    })  # fmt: skip
    newest: dict[str, dict[str, Any]] = {}
    try:
        open_parts = set(consumer.list_topics(RESULTS, timeout=10).topics[RESULTS].partitions)
        consumer.assign([TopicPartition(RESULTS, number, OFFSET_BEGINNING) for number in open_parts])
        while open_parts:
            message = consumer.poll(10)
            if message is None:
                raise TimeoutError("Kafka does not answer")
            if message.error():  # the end of a partition
                open_parts.discard(message.partition())
                continue
            result: Any = read(message.value(), SerializationContext(RESULTS, MessageField.VALUE))
            before = newest.get(result["payment_id"])
            if before is None or result["version"] > before["version"]:
                newest[result["payment_id"]] = result
    finally:
        consumer.close()
    return list(newest.values())


# %% 3. Both side by side


def main() -> None:
    """Print both, and whether they agree."""
    stored = asyncio.run(from_sql(os.environ["DATABASE_URL"]))
    results = from_kafka(os.environ["KAFKA_BOOTSTRAP"], f"{os.environ['KIFIYA_URL']}/registry")
    minor: defaultdict[str, int] = defaultdict(int)
    for result in results:
        if result["status"] == "COMPLETED":
            minor[result["currency"]] += result["amount_minor"]
    told = Counter(result["status"] for result in results)
    print(f"\nresults on the topic: {dict(told)}; completed in USD: {Decimal(minor['USD']) / 100:.2f}")
    # The view follows the topics by a moment, and the topic holds what the view holds.
    print("the view has nothing that the topic has not:", all(told[state] >= count for state, count in stored.items()))


if __name__ == "__main__":
    main()
