"""Two hundred requests at once with one key, a thousand keys one after the other: each becomes one payment."""

from __future__ import annotations

from typing import Any, Final

from aiokafka import TopicPartition

from ops.bench.figures import Aim, Figure
from ops.bench.rig import Bench, kafka_of, output
from ops.bench.served import Server, one_ingress
from ops.kafka.clients import KafkaSettings, end_offsets
from schemas import topics

NAME: Final = "keys"
AT_ONCE: Final = 200
"""As many as work at a time, and some less: who stands in line sends nothing at once."""
_WITHIN_S: Final = 900.0


async def measure(bench: Bench) -> list[Figure]:
    """One ingress, and what it published."""
    count = bench.size(1000, 50)
    async with one_ingress(bench) as (server, stack):
        found = await _waves(server, count)
        published = await _published(kafka_of(stack))
    others = sum(number for status, number in found["statuses"].items() if status not in {"201", "409"})
    once = found["made"].get("1", 0)
    return [
        Figure(
            NAME, f"keys of which one of {AT_ONCE} requests was accepted", [once], "keys", Aim(count, at_least=True)
        ),
        Figure(NAME, "records published beyond one a key", [published - count], "records", Aim(0)),
        Figure(NAME, "answers that are neither 201 nor 409", [others], "requests", Aim(0)),
        Figure(NAME, "p50 of an answer", [found["p50_ms"]], "ms"),
        Figure(NAME, "p99 of an answer", [found["p99_ms"]], "ms"),
    ]


async def _waves(server: Server, keys: int) -> dict[str, Any]:
    arguments = ["--url", server.url, "--api-key", server.key, "--keys", str(keys), "--connections", str(AT_ONCE)]
    return await output(["ops.bench.load", "waves", *arguments], _WITHIN_S)


async def _published(kafka: KafkaSettings) -> int:
    """How many commands there are."""
    partitions = next(each.partitions for each in topics.declare(["simulator"]) if each.name == topics.COMMANDS)
    ends = await end_offsets(kafka, [TopicPartition(topics.COMMANDS, number) for number in range(partitions)])
    return sum(ends.values())
