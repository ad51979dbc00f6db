"""What a case runs on: a stack with proxies before it, a provider a lane, and every role as a process of its own."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ops import merchants
from ops.chaos.actors import Actor, Role, Service, supervise
from ops.chaos.case import NETWORK, Case
from ops.chaos.proxy import Proxy
from ops.kafka import broker
from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings
from ops.local import child
from ops.local.gateway import migrate
from ops.local.ports import free_port
from ops.local.stack import Stack, running
from schemas import topics
from schemas.api_key import SANDBOX_PEPPER, SCOPES, Mode
from schemas.lanes import KEYLESS_SANDBOX, Lane

TIERS: Final = "1s,2s,5s"
"""Chaos caps retries at 8 s, so that what is late is late for another reason."""
MERCHANTS: Final = ("acme", "globex", "initech")
GUARD_MS: Final = 150
"""The least guard of a lane here: a dozen processes, killed and started again, share a few cores with the provider,
whose own lateness is jitter like a network's. How exact the limiter is, its own tests tell."""


def producers(case: Case) -> tuple[str, ...]:
    """The merchants whom the load over Kafka names and intake admits; another one comes by the ingress's seal alone.

    Not where intake forgets within seconds: a seal is good no longer than that, and a pause of intake may be longer.
    """
    return MERCHANTS if "DEDUP_WINDOW_S" in case.settings else MERCHANTS[:-1]


@dataclass(slots=True)
class Rig:
    """A running gateway with all that can happen to it. ``urls`` lead to the services past every proxy."""

    case: Case
    folder: Path
    stack: Stack
    proxies: dict[str, list[Proxy]] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    roles: list[Role] = field(default_factory=list)
    simulators: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    ingress: list[str] = field(default_factory=list)

    @property
    def kafka(self) -> KafkaSettings:
        """How its clients reach Kafka."""
        return KafkaSettings(self.stack.kafka_bootstrap, self.stack.kafka_dialect)

    def actors(self, what: str) -> list[Actor]:
        """The processes of a role, of one lane's dispatch, or of a service."""
        if what in self.services:
            return [self.services[what]]
        return [role for role in self.roles if role.name.partition("#")[0] == what or role.name.startswith(f"{what}-")]


@asynccontextmanager
async def rigged(case: Case, folder: Path) -> AsyncIterator[Rig]:
    """Have a case's gateway ready and supervised for the block; logs go to ``folder``. Raises StartError."""
    data = child.run_folder("kifiya-chaos-")
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        rig = await stack.enter_async_context(_services(case, folder, data))
        urls = await _proxied(rig, stack)
        await create_topics(
            rig.kafka, topics.declare(case.lanes, tiers=case.settings.get("RETRY_TIERS", TIERS).split(","))
        )
        await migrate(rig.stack.database_url)
        await _merchants(rig)
        parts = [_simulator(rig, name, lane) for name, lane in case.lanes.items()]
        await asyncio.gather(*(stack.enter_async_context(part) for part in parts))
        lanes = await _lanes(rig, stack)
        _roles(rig, urls, lanes, data)
        try:
            for role in rig.roles:
                role.start()
            watching = asyncio.create_task(supervise(rig.roles))
            stack.callback(watching.cancel)
            await asyncio.gather(*(role.ready() for role in rig.roles))
            yield rig
        finally:
            for role in rig.roles:
                role.down = True
            await asyncio.gather(*(role.stop() for role in rig.roles))


def _linked(case: Case) -> set[str]:
    """The links that some fault is about: the others need no proxy, and their bytes no detour."""
    return {fault.what for fault in case.faults if fault.do in NETWORK}


def _chance(case: Case, what: str) -> random.Random:
    return random.Random(f"{case.seed}-{what}")  # noqa: S311 - a seed that can be had again


@asynccontextmanager
async def _services(case: Case, folder: Path, data: Path) -> AsyncIterator[Rig]:
    if case.stack == "embedded":
        async with running("embedded", overrides=False) as stack:
            yield Rig(case, folder, stack, services={name: Service(part) for name, part in stack.processes.items()})
        return
    async with AsyncExitStack() as exits:
        told = free_port() if "kafka" in _linked(case) else 0
        stack = await exits.enter_async_context(
            running("apache", parts=frozenset({"redis", "postgres"}), overrides=False)
        )
        rig = Rig(case, folder, stack, services={name: Service(part) for name, part in stack.processes.items()})
        [node], bootstrap = await broker.prepare(data, told=[told] if told else ())
        stack.kafka_bootstrap, stack.kafka_dialect = bootstrap, "apache"
        if told:
            proxy = Proxy("127.0.0.1", int(bootstrap.rpartition(":")[2]), chance=_chance(case, "kafka"))
            await exits.enter_async_context(proxy.listening(told))
            rig.proxies["kafka"] = [proxy]
            stack.kafka_bootstrap = f"127.0.0.1:{told}"
        node.spawn()
        exits.push_async_callback(node.stop)
        await node.ready(60.0)
        rig.services["kafka"] = Service(node)
        yield rig


async def _proxied(rig: Rig, exits: AsyncExitStack) -> dict[str, str]:
    """The URLs that the roles get, through a proxy where some fault asks for one."""
    found = {"REDIS_URL": rig.stack.redis_url, "DATABASE_URL": rig.stack.database_url}
    for name, variable in (("redis", "REDIS_URL"), ("postgres", "DATABASE_URL")):
        if name in _linked(rig.case):
            port = urlsplit(found[variable]).port or 0
            proxy = Proxy("127.0.0.1", port, chance=_chance(rig.case, name))
            await exits.enter_async_context(proxy.listening())
            rig.proxies[name] = [proxy]
            found[variable] = found[variable].replace(f":{port}/", f":{proxy.port}/")
    return found


async def _merchants(rig: Rig) -> None:
    async with merchants.connected(rig.stack.database_url) as db:
        for name in MERCHANTS:
            await merchants.add(db, name, Mode.TEST, rate_limit="100000/second")
            made = await merchants.create_key(db, SANDBOX_PEPPER.encode(), name, SCOPES)
            rig.keys[name] = made.key


@asynccontextmanager
async def _simulator(rig: Rig, name: str, lane: Lane) -> AsyncIterator[None]:
    port = free_port()
    url = rig.simulators[name] = f"http://127.0.0.1:{port}"
    options = ["--keyless"] if lane.provider == KEYLESS_SANDBOX else []
    options += ["--port", str(port), "--limit", str(lane.limit), "--window-ms", str(lane.window_ms)]
    role = Role(
        f"simulator-{name}", _python("ops.simulator", *options), f"{url}/healthz", {},
        rig.folder / f"simulator-{name}.log",
    )  # fmt: skip
    role.start()
    try:
        await role.ready()
        yield
    finally:
        await role.stop()


async def _lanes(rig: Rig, exits: AsyncExitStack) -> str:
    """What LANES says: each lane's provider, through a proxy where some fault asks for one."""
    found = {}
    for name, lane in rig.case.lanes.items():
        url = rig.simulators[name]
        if "provider" in _linked(rig.case):
            proxy = Proxy("127.0.0.1", urlsplit(url).port or 0, chance=_chance(rig.case, name))
            await exits.enter_async_context(proxy.listening())
            rig.proxies.setdefault("provider", []).append(proxy)
            url = f"http://127.0.0.1:{proxy.port}"
        told = asdict(replace(lane, url=url, guard_ms=max(lane.guard_ms, GUARD_MS)))
        found[name] = {field: value for field, value in told.items() if field != "name"}
    return json.dumps(found)


def _roles(rig: Rig, urls: Mapping[str, str], lanes: str, data: Path) -> None:
    case = rig.case
    common = {
        "KAFKA_BOOTSTRAP": rig.stack.kafka_bootstrap, "KAFKA_DIALECT": rig.stack.kafka_dialect, "LANES": lanes,
        "RETRY_TIERS": TIERS, "API_KEY_PEPPER": SANDBOX_PEPPER, "ADMIN_HOST": "127.0.0.1", "DATA_DIR": str(data),
        "INGRESS_HOST": "127.0.0.1", "KAFKA_MERCHANTS": ",".join(producers(case)),
        "COMMAND_SECRET": secrets.token_hex(32), **urls, **case.settings,
    }  # fmt: skip
    commands = {
        "ingress": ["ingress"],
        "intake": ["streams", "intake"],
        "delay": ["streams", "delay"],
        "sink": ["sinks"],
    }
    commands |= {f"dispatch-{lane}": ["streams", "dispatch", "--lane", lane] for lane in case.lanes}
    for name, command in commands.items():
        count = case.workers.get(name, case.workers.get(name.partition("-")[0], 1))
        for number in range(1, count + 1):
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            variable = "INGRESS_PORT" if name == "ingress" else "ADMIN_PORT"
            label = name if number == 1 else f"{name}#{number}"
            home = data / label
            home.mkdir()
            settings = {**common, variable: str(port), "DATA_DIR": str(home)}
            rig.roles.append(Role(label, _python(*command), f"{url}/readyz", settings, rig.folder / f"{label}.log"))
            if name == "ingress":
                rig.ingress.append(url)


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", *arguments]
