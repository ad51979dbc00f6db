"""The publisher on Apache Kafka: a producer that has lost count is replaced, and nobody notices but once."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Message, Publisher, PublishTimedOut, end_offsets
from ops.local.stack import running
from schemas import topics

pytestmark = [pytest.mark.kafka, pytest.mark.long]


async def test_a_partition_whose_numbers_have_a_gap_takes_records_again() -> None:
    """aiokafka leaves a gap where a batch outlives its time while no leader is known; here it is made by hand."""
    async with running("apache", parts=frozenset({"kafka"}), overrides=False) as stack:
        kafka = KafkaSettings(stack.kafka_bootstrap)
        await create_topics(kafka, topics.declare(["lane"]))
        parts = [TopicPartition(topics.COMMANDS, number) for number in range(2)]
        async with Publisher(kafka) as publisher:
            for part in parts:
                await publisher.publish([Message(part.topic, b"k", b"1", partition=part.partition)])
            assert publisher._producer is not None
            publisher._producer._txn_manager.increment_sequence_number(parts[0], 1)
            with pytest.raises(PublishTimedOut, match="OutOfOrderSequenceNumber"):
                await publisher.publish([Message(part.topic, b"k", b"2", partition=part.partition) for part in parts])
            for value in (b"2", b"3"):
                await publisher.publish([Message(part.topic, b"k", value, partition=part.partition) for part in parts])
        assert await end_offsets(kafka, parts) == {parts[0]: 3, parts[1]: 4}
