"""Is it there? Each probe speaks the part's own protocol."""

from __future__ import annotations

import asyncio

import asyncpg
import redis.asyncio as redis
from aiokafka.admin import AIOKafkaAdminClient


async def kafka(bootstrap: str, *, brokers: int = 1, timeout_s: float = 2.0) -> bool:
    """Whether that many brokers answer a metadata request. Raises OSError, KafkaError."""
    for address in bootstrap.split(","):  # the client retries and complains aloud; a closed port needs neither
        host, _, port = address.strip().rpartition(":")
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), timeout_s)
        writer.close()
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(timeout_s * 1000))
    try:
        await client.start()
        found = await client.describe_cluster()
        return len(found["brokers"]) >= brokers
    finally:
        await client.close()


async def redis_server(url: str, timeout_s: float = 2.0) -> bool:
    """Whether Redis answers PING. Raises RedisError."""
    client = redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    try:
        return bool(await client.ping())
    finally:
        await client.aclose()


async def postgres(url: str, timeout_s: float = 2.0) -> bool:
    """Whether PostgreSQL answers a query. Raises OSError, asyncpg.PostgresError, TimeoutError."""
    connection = await asyncpg.connect(url, timeout=timeout_s)
    try:
        return bool(await connection.fetchval("SELECT true", timeout=timeout_s))
    finally:
        await connection.close(timeout=timeout_s)
