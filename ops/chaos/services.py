"""The services of a run, each with a proxy before it where a fault asks for one: Kafka's nodes, Redis, PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ops.chaos.actors import Service
from ops.chaos.case import NETWORK, Case, Deed
from ops.chaos.clocks import Clocks
from ops.chaos.proxy import Proxy
from ops.chaos.standby import Pair
from ops.kafka import broker
from ops.local import child
from ops.local.child import Child
from ops.local.ports import free_port
from ops.local.stack import Stack, running, start_redis

START_S: Final = 120.0
"""How long Kafka's nodes may take, all started at once on a few cores."""

_NODES: Final = {"broker.session.timeout.ms": 5000, "broker.heartbeat.interval.ms": 1000}
"""Of several: one that was killed is let in again once its old session is over; with Kafka's 9 s few kills fit in."""


@dataclass(slots=True)
class Services:
    """What runs. ``stack`` leads past every proxy but Kafka's; ``urls`` are the settings that lead the roles there."""

    stack: Stack
    actors: dict[str, Service] = field(default_factory=dict)
    proxies: dict[str, list[Proxy]] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    pair: Pair | None = None


def linked(case: Case) -> set[str]:
    """The links that some fault is about: the others need no proxy, and their bytes no detour."""
    found = {fault.what for fault in case.faults if fault.do in NETWORK and not fault.of}
    return found | {fault.what for fault in case.faults if fault.do is Deed.FAILOVER}


async def proxied(case: Case, what: str, target: int, exits: AsyncExitStack, *, port: int = 0) -> Proxy:
    """A proxy before this port, itself on ``port`` or a free one. Raises OSError."""
    chance = random.Random(f"{case.seed}-{what}")  # noqa: S311 - a seed that can be had again
    return await exits.enter_async_context(Proxy("127.0.0.1", target, chance=chance).listening(port))


async def started(case: Case, data: Path, clocks: Clocks, exits: AsyncExitStack) -> Services:
    """Have the case's services run until ``exits`` closes. Raises StartError."""
    parts = frozenset({"postgres"} if case.stack == "apache" else {"postgres", "kafka"})
    stack = await exits.enter_async_context(running(case.stack, parts=parts, overrides=False))
    found = Services(stack, {name: Service(part) for name, part in stack.processes.items()})
    await _redis(found, case, data, clocks, exits)
    found.urls["DATABASE_URL"] = stack.database_url
    if "postgres" in linked(case):
        port = urlsplit(stack.database_url).port or 0
        proxy = await proxied(case, "postgres", port, exits)
        found.proxies["postgres"] = [proxy]
        found.urls["DATABASE_URL"] = stack.database_url.replace(f":{port}/", f":{proxy.port}/")
    if case.stack == "apache":
        await _kafka(found, case, data, exits)
    return found


async def _redis(found: Services, case: Case, data: Path, clocks: Clocks, exits: AsyncExitStack) -> None:
    password, stack = secrets.token_urlsafe(18), found.stack
    part, stack.redis_url = await _one_redis(_folder(data, "redis"), password, clocks, exits)
    found.actors["redis"] = Service(part)
    found.urls["REDIS_URL"] = stack.redis_url
    if "redis" not in linked(case):
        return
    port = urlsplit(stack.redis_url).port or 0
    proxy = await proxied(case, "redis", port, exits)
    found.proxies["redis"] = [proxy]
    found.urls["REDIS_URL"] = stack.redis_url.replace(f":{port}/", f":{proxy.port}/")
    if any(fault.do is Deed.FAILOVER for fault in case.faults):
        standby, url = await _one_redis(_folder(data, "standby"), password, clocks, exits)
        found.pair = Pair(stack, proxy, found.actors["redis"], standby, url)


def _folder(data: Path, name: str) -> Path:
    home = data / name
    home.mkdir()
    child.give(home)
    return home


async def _one_redis(home: Path, password: str, clocks: Clocks, exits: AsyncExitStack) -> tuple[Child, str]:
    alone = Stack()
    await start_redis(alone, home, password=password, env={**os.environ, **clocks.settings("redis")})
    part = alone.processes["redis"]
    exits.push_async_callback(part.stop)
    return part, alone.redis_url


async def _kafka(found: Services, case: Case, data: Path, exits: AsyncExitStack) -> None:
    links = {"kafka", *case.nodes} & linked(case)
    told = [free_port() for _ in range(case.kafka_nodes)] if links else []
    settings = _NODES if case.kafka_nodes > 1 else {}
    nodes, bootstrap = await broker.prepare(data, case.kafka_nodes, told=told, settings=settings)
    found.stack.kafka_bootstrap, found.stack.kafka_dialect = bootstrap, "apache"
    if told:
        ports = [int(address.rpartition(":")[2]) for address in bootstrap.split(",")]
        ways = [
            await proxied(case, node.name, port, exits, port=way)
            for node, port, way in zip(nodes, ports, told, strict=True)
        ]
        found.proxies |= {node.name: [way] for node, way in zip(nodes, ways, strict=True)} | {"kafka": ways}
        found.stack.kafka_bootstrap = ",".join(f"127.0.0.1:{way}" for way in told)
    for node in nodes:
        node.spawn()
        exits.push_async_callback(node.stop)
        found.actors[node.name] = Service(node)
    await asyncio.gather(*(node.ready(START_S) for node in nodes))
