"""What a case runs on: a stack with proxies before it, a provider a lane, and every role as a process of its own."""

from __future__ import annotations

import asyncio
import json
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
from ops.chaos.case import Case, Deed, aims_at
from ops.chaos.clocks import Clocks
from ops.chaos.proxy import Proxy
from ops.chaos.services import linked, proxied, started
from ops.chaos.standby import Pair
from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings
from ops.local import child
from ops.local.gateway import migrate
from ops.local.ports import free_port
from ops.local.stack import Stack
from schemas import topics
from schemas.api_key import SANDBOX_PEPPER, SCOPES, Mode
from schemas.lanes import KEYLESS_SANDBOX, Lane

TIERS: Final = "1s,2s,5s"
"""Chaos caps retries at 8 s, so that what is late is late for another reason."""
MERCHANTS: Final = ("acme", "globex", "initech")
TOPICS_S: Final = 90.0
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
    """A running gateway with all that can happen to it. ``stack`` leads past every proxy but Kafka's."""

    case: Case
    folder: Path
    stack: Stack
    clocks: Clocks
    pair: Pair | None = None
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
        everyone: list[Actor] = [*self.services.values(), *self.roles]
        return [actor for actor in everyone if aims_at(what, actor.name)]


@asynccontextmanager
async def rigged(case: Case, folder: Path) -> AsyncIterator[Rig]:
    """Have a case's gateway ready and supervised for the block; logs go to ``folder``. Raises StartError."""
    data = child.run_folder("kifiya-chaos-")
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        clocks = Clocks(data, (fault.what for fault in case.faults if fault.do is Deed.CLOCK))
        found = await started(case, data, clocks, stack)
        rig = Rig(case, folder, found.stack, clocks, found.pair, found.proxies, found.actors)
        await create_topics(
            rig.kafka, topics.declare(case.lanes, tiers=case.settings.get("RETRY_TIERS", TIERS).split(",")),
            replication=case.kafka_nodes, timeout_s=TOPICS_S,
        )  # fmt: skip
        await migrate(rig.stack.database_url)
        await _merchants(rig)
        parts = [_simulator(rig, name, lane) for name, lane in case.lanes.items()]
        await asyncio.gather(*(stack.enter_async_context(part) for part in parts))
        lanes = await _lanes(rig, stack)
        _roles(rig, found.urls, await _own_links(rig, found.urls, stack), lanes, data)
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
        if "provider" in linked(rig.case):
            proxy = await proxied(rig.case, name, urlsplit(url).port or 0, exits)
            rig.proxies.setdefault("provider", []).append(proxy)
            url = f"http://127.0.0.1:{proxy.port}"
        told = asdict(replace(lane, url=url, guard_ms=max(lane.guard_ms, GUARD_MS)))
        found[name] = {field: value for field, value in told.items() if field != "name"}
    return json.dumps(found)


async def _own_links(rig: Rig, urls: Mapping[str, str], exits: AsyncExitStack) -> dict[str, dict[str, str]]:
    """The URLs of each worker that some fault cuts off alone: through a proxy of its own, before everybody's."""
    variables = {"redis": "REDIS_URL", "postgres": "DATABASE_URL"}
    found: dict[str, dict[str, str]] = {}
    for fault in rig.case.faults:
        if not fault.of or fault.link in rig.proxies:
            continue
        url = urls[variables[fault.what]]
        port = urlsplit(url).port or 0
        proxy = await proxied(rig.case, fault.link, port, exits)
        rig.proxies[fault.link] = [proxy]
        found.setdefault(fault.of, {})[variables[fault.what]] = url.replace(f":{port}/", f":{proxy.port}/")
    return found


def _roles(rig: Rig, urls: Mapping[str, str], own: Mapping[str, Mapping[str, str]], lanes: str, data: Path) -> None:
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
        for label in case.workers_of(name):
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            variable = "INGRESS_PORT" if name == "ingress" else "ADMIN_PORT"
            home = data / label
            home.mkdir()
            settings = {**common, **own.get(label, {}), variable: str(port), "DATA_DIR": str(home)}
            settings |= rig.clocks.settings(label)
            rig.roles.append(Role(label, _python(*command), f"{url}/readyz", settings, rig.folder / f"{label}.log"))
            if name == "ingress":
                rig.ingress.append(url)


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", *arguments]
