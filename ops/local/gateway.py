"""The whole gateway on this machine: the stack, its topics and tables, the simulator and every role, supervised."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import asyncpg
from aiokafka.errors import KafkaError

from ops import merchants
from ops.kafka.admin import TopicsDiffer, create_topics
from ops.kafka.clients import KafkaSettings
from ops.local import child
from ops.local.child import Child, StartError
from ops.local.ports import free_port
from ops.local.stack import Kind, Stack, running
from ops.local.state import Running, command_secret
from ops.local.supervisor import Supervisor
from schemas import topics
from schemas.api_key import SANDBOX_PEPPER, SCOPES, Mode
from schemas.lanes import Lane, parse_lanes
from streams.admission import EVERY

READY_S: Final = 90.0
DEFAULT_LANES: Final = '{"simulator": {"provider": "simulator", "limit": 2, "guard_ms": 40}}'
"""Twice the usual guard: here a dozen processes share a few cores, and a late one is jitter like a network's."""
ROLES: Final = ("ingress", "intake", "dispatch", "delay", "sink")


@dataclass(slots=True)
class Gateway:
    """A running gateway: where it is, and its processes."""

    stack: Stack
    supervisor: Supervisor
    lanes: dict[str, Lane] = field(default_factory=dict)
    log: Path | None = None
    ingress: str = ""
    merchant_id: str = "shop"
    api_key: str = ""
    admin: dict[str, str] = field(default_factory=dict)

    def describe(self) -> Running:
        """What `kifiya up --json` prints."""
        return Running(
            ingress=self.ingress,
            simulator=next(iter(self.lanes.values())).url,
            kafka=self.stack.kafka_bootstrap,
            kafka_dialect=self.stack.kafka_dialect,
            redis=self.stack.redis_url,
            postgres=self.stack.database_url,
            merchant_id=self.merchant_id,
            api_key=self.api_key,
            lanes=_dump(self.lanes),
            retry_tiers=_tiers(),
            supervisor=os.getpid(),
            pids=self.supervisor.pids,
            admin=dict(self.admin),
        )


def _dump(lanes: dict[str, Lane]) -> str:
    return json.dumps({name: {k: v for k, v in asdict(lane).items() if k != "name"} for name, lane in lanes.items()})


def _tiers() -> str:
    return os.environ.get("RETRY_TIERS") or ",".join(topics.DEFAULT_TIERS)


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", *arguments]


async def _answers(url: str) -> bool:
    def ask() -> bool:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http address
            return bool(answer.status == 200)  # noqa: PLR2004

    return await asyncio.to_thread(ask)


def _role(found: Gateway, name: str, command: list[str], url: str, env: dict[str, str]) -> None:
    found.supervisor.start(
        Child(
            name,
            command,
            probe=lambda: _answers(url),
            log=found.log,
            env={**os.environ, **env},
            drop_rights=False,
        )
    )


@asynccontextmanager
async def gateway(
    kind: Kind = "embedded",
    *,
    data_dir: Path | None = None,
    kafka_nodes: int = 1,
    log: Path | None = None,
    changed: Callable[[Gateway], None] = lambda _: None,
) -> AsyncIterator[Gateway]:
    """Have a gateway ready and supervised for the block. Raises StartError with what is wrong.

    Roles write to ``log``, else to our own stderr. ``changed`` is called when a role was started again.
    """
    async with running(kind, data_dir=data_dir, kafka_nodes=kafka_nodes) as stack:
        found = Gateway(stack, Supervisor(lambda: changed(found)), log=log)
        data = child.run_folder("kifiya-roles-")
        try:
            await _start(found, data)
            watching = asyncio.create_task(found.supervisor.watch())
            try:
                await found.supervisor.ready(READY_S)
                yield found
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
        finally:
            await found.supervisor.stop()
            await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)


async def _start(found: Gateway, data: Path) -> None:
    stack = found.stack
    try:
        found.lanes = parse_lanes(
            os.environ.get("LANES") or DEFAULT_LANES, default_url=os.environ.get("SIMULATOR_URL", "")
        )
    except ValueError as error:
        raise StartError(str(error)) from error
    tiers = tuple(name.strip() for name in _tiers().split(",") if name.strip())
    _simulators(found)
    await asyncio.gather(
        _topics(KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect), found.lanes, tiers),
        migrate(stack.database_url),
    )
    pepper = os.environ.get("API_KEY_PEPPER") or SANDBOX_PEPPER
    await _provision(found, pepper.encode())
    common = {
        "KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "KAFKA_DIALECT": stack.kafka_dialect,
        "REDIS_URL": stack.redis_url,
        "DATABASE_URL": stack.database_url,
        "LANES": _dump(found.lanes),
        "RETRY_TIERS": ",".join(tiers),
        "DATA_DIR": str(data),
        "API_KEY_PEPPER": pepper,
        "COMMAND_SECRET": os.environ.get("COMMAND_SECRET") or command_secret(),
        "KAFKA_MERCHANTS": admitted(found.merchant_id, os.environ.get("KAFKA_MERCHANTS", "")),
    }
    port = free_port(int(os.environ.get("INGRESS_PORT") or 8000))
    found.ingress = f"http://127.0.0.1:{port}"
    _role(
        found, "ingress", _python("ingress"), f"{found.ingress}/readyz",
        {**common, "INGRESS_PORT": str(port), "INGRESS_HOST": "127.0.0.1"},
    )  # fmt: skip
    commands = {"intake": ["streams", "intake"], "delay": ["streams", "delay"], "sink": ["sinks"]}
    for number, lane in enumerate(found.lanes):
        commands["dispatch" if number == 0 else f"dispatch-{lane}"] = ["streams", "dispatch", "--lane", lane]
    for name, command in commands.items():
        admin = free_port()
        found.admin[name] = f"http://127.0.0.1:{admin}"
        _role(
            found, name, _python(*command), f"http://127.0.0.1:{admin}/readyz",
            {**common, "ADMIN_HOST": "127.0.0.1", "ADMIN_PORT": str(admin)},
        )  # fmt: skip
    found.admin["ingress"] = found.ingress


def admitted(merchant_id: str, more: str) -> str:
    """KAFKA_MERCHANTS of a gateway here: its own merchant, and those that the environment names. Pure."""
    if more.strip() == EVERY:
        return EVERY
    return ",".join(dict.fromkeys(name.strip() for name in (merchant_id, *more.split(",")) if name.strip()))


async def _provision(found: Gateway, pepper: bytes) -> None:
    """A merchant of the default lane's mode, and a key of its own for this run."""
    found.merchant_id = os.environ.get("KIFIYA_MERCHANT") or "shop"
    mode = Mode.TEST if next(iter(found.lanes.values())).sandbox else Mode.LIVE
    try:
        async with merchants.connected(found.stack.database_url) as db:
            await merchants.add(db, found.merchant_id, mode)
            made = await merchants.create_key(db, pepper, found.merchant_id, SCOPES, label="kifiya up")
    except (merchants.Refused, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(f"the merchant {found.merchant_id} cannot be made: {error}") from error
    found.api_key = made.key


def _simulators(found: Gateway) -> None:
    """One simulator for each lane of that provider that names no address: each with the lane's own limit."""
    for number, (name, lane) in enumerate(list(found.lanes.items())):
        if lane.url or lane.provider != "simulator":
            continue
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        found.lanes[name] = Lane(**{**asdict(lane), "url": url})
        command = [
            "ops.simulator", "--port", str(port), "--limit", str(lane.limit), "--window-ms", str(lane.window_ms),
        ]  # fmt: skip
        role = "simulator" if number == 0 else f"simulator-{name}"
        _role(found, role, _python(*command), f"{url}/healthz", {})


async def _topics(kafka: KafkaSettings, lanes: dict[str, Lane], tiers: tuple[str, ...]) -> None:
    replication = min(3, len(kafka.bootstrap.split(",")))
    declared = topics.declare(
        lanes,
        tiers=tiers,
        command_partitions=int(os.environ.get("COMMAND_PARTITIONS") or 12),
        lane_partitions=int(os.environ.get("LANE_PARTITIONS") or 8),
    )
    try:
        await create_topics(kafka, declared, replication=replication)
    except (KafkaError, TopicsDiffer, TimeoutError, OSError) as error:
        raise StartError(f"the topics cannot be created: {error}") from error


async def migrate(database_url: str) -> None:
    """Bring the tables of this database up to date. Raises StartError."""
    process = await asyncio.create_subprocess_exec(
        *_python("sinks", "migrate"),
        env={**os.environ, "DATABASE_URL": database_url, "KAFKA_BOOTSTRAP": "-"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise StartError(f"the tables cannot be migrated: {said.decode(errors='replace')[-600:].strip()}")
