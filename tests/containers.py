"""The stack from container images, where a Docker engine answers (TEST_STACK=containers)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from ops.local.stack import Stack


def _start(resources: ExitStack) -> Stack:
    from testcontainers.kafka import KafkaContainer  # noqa: PLC0415 - needs a Docker engine
    from testcontainers.postgres import PostgresContainer  # noqa: PLC0415
    from testcontainers.redis import RedisContainer  # noqa: PLC0415

    kafka = resources.enter_context(KafkaContainer("confluentinc/cp-kafka:7.9.0").with_kraft())
    redis = resources.enter_context(RedisContainer("valkey/valkey:8.1-alpine"))
    postgres = resources.enter_context(PostgresContainer("postgres:18-alpine", driver=None))
    return Stack(
        kafka_bootstrap=kafka.get_bootstrap_server(),
        redis_url=f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0",
        database_url=postgres.get_connection_url(),
    )


@asynccontextmanager
async def running() -> AsyncIterator[Stack]:
    """A broker, a Redis and a PostgreSQL in containers; they are removed at the end."""
    with ExitStack() as resources:
        yield await asyncio.to_thread(_start, resources)
