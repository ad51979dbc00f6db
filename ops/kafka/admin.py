"""Topics on the broker: made from their declaration, checked against it, never changed silently."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from ops.kafka.clients import KafkaSettings
from schemas.topics import Topic


class TopicsDiffer(Exception):
    """A topic exists with another number of partitions than declared: keys would change their home."""


async def create_topics(
    kafka: KafkaSettings, declared: Iterable[Topic], *, replication: int = 1, timeout_s: float = 30.0
) -> list[str]:
    """Create what is missing; the names created. Raises KafkaError, TimeoutError, TopicsDiffer."""
    wanted = list(declared)
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap, request_timeout_ms=int(timeout_s * 1000))
    async with asyncio.timeout(timeout_s):
        await client.start()
        try:
            existing = set(await client.list_topics())
            missing = [topic for topic in wanted if topic.name not in existing]
            if missing:
                answer = await client.create_topics(
                    [
                        NewTopic(topic.name, topic.partitions, replication, topic_configs=_config(topic, replication))
                        for topic in missing
                    ]
                )
                for name, code, *message in answer.topic_errors:
                    error = for_code(code)
                    if code and error.__name__ != "TopicAlreadyExistsError":
                        raise KafkaError(f"topic {name}: {error.__name__} {message[0] if message else ''}")
            await _until_led(client, wanted)
        finally:
            await client.close()
    return [topic.name for topic in missing]


def _config(topic: Topic, replication: int) -> dict[str, str]:
    return {**topic.config, "min.insync.replicas": str(max(1, replication - 1))}


async def _until_led(client: AIOKafkaAdminClient, wanted: list[Topic]) -> None:
    """Wait until each partition has a leader; compare the counts."""
    counts = {topic.name: topic.partitions for topic in wanted}
    while True:
        found = await client.describe_topics(list(counts))
        ready = True
        for item in found:
            name, partitions = item["topic"], item["partitions"]
            if item["error_code"] or any(partition["leader"] < 0 for partition in partitions):
                ready = False
            elif len(partitions) != counts[name]:
                raise TopicsDiffer(
                    f"topic {name} has {len(partitions)} partitions, {counts[name]} are declared: "
                    "set COMMAND_PARTITIONS and LANE_PARTITIONS to what the cluster has"
                )
        if ready and len(found) == len(counts):
            return
        await asyncio.sleep(0.1)
