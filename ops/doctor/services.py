"""The gateway that runs: every service asked in its own protocol, every role asked whether it is ready; all bounded."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import asyncpg
import redis.asyncio as redis
from aiokafka.errors import KafkaError

from ops.doctor import Finding, bad, ok, warn
from ops.kafka.clients import KafkaSettings
from ops.kafka.reading import partition_counts
from ops.local import probes
from ops.local.state import Running
from schemas.topics import Topic
from streams.admission import EVERY, parse_merchants

PROBE_S: Final = 5.0
CHECK_S: Final = 20.0
CLOCKS_APART_S: Final = 1.0
START: Final = "start it, or correct {}"


async def check(running: Running, topics: Sequence[Topic]) -> list[Finding]:
    """All findings about the services and roles of this gateway; ``topics`` are those it declares."""
    asked: list[Awaitable[list[Finding]]] = []
    for name, address, variable, ask in (
        ("kafka", running.kafka, "KAFKA_BOOTSTRAP", lambda: kafka(running.settings, topics)),
        ("redis", running.redis, "REDIS_URL", lambda: redis_server(running.redis)),
        ("postgres", running.postgres, "DATABASE_URL", lambda: postgres(running.postgres)),
    ):
        asked.append(_bounded(name, variable, ask) if address else _unnamed(name, variable))
    roles = {**running.admin, **({"ingress": running.ingress} if running.ingress else {})}
    asked += [_role(name, url) for name, url in sorted(roles.items())]
    if running.kafka:
        asked.append(_producers(roles.get("intake", "")))
    return [finding for findings in await asyncio.gather(*asked) for finding in findings]


async def _unnamed(name: str, variable: str) -> list[Finding]:
    return [warn(name, "its address is not known", f"set {variable}, or start everything with `kifiya up`")]


async def _bounded(name: str, variable: str, ask: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """What the check finds; that the service does not answer is a finding too."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await ask()
    except (OSError, KafkaError, redis.RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        said = " ".join(str(error).split())[:160]
        return [bad(name, f"no answer: {type(error).__name__} {said}".rstrip(), START.format(variable))]


async def kafka(settings: KafkaSettings, topics: Sequence[Topic]) -> list[Finding]:
    """Whether Kafka answers and has each topic with as many partitions as declared. Raises OSError, KafkaError."""
    await probes.kafka(settings.bootstrap, timeout_s=PROBE_S)
    found = [ok("kafka", f"{settings.bootstrap} answers")]
    return [*found, compare(topics, await partition_counts(settings))] if topics else found


def compare(topics: Sequence[Topic], counts: dict[str, int]) -> Finding:
    """Declared topics against those there are. Pure."""
    missing = [topic.name for topic in topics if topic.name not in counts]
    differ = [topic for topic in topics if counts.get(topic.name, topic.partitions) != topic.partitions]
    if missing:
        return bad("topics", f"{len(missing)} are missing: {_few(missing)}", "kifiya topics create")
    if differ:
        said = _few([f"{topic.name} has {counts[topic.name]} partitions, not {topic.partitions}" for topic in differ])
        return bad("topics", said, "set COMMAND_PARTITIONS and LANE_PARTITIONS to what the cluster has, for all roles")
    return ok("topics", f"all {len(topics)} are there, with as many partitions as declared")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004 - the same 3


async def redis_server(url: str) -> list[Finding]:
    """Whether Redis answers, never evicts, and has our time. Raises RedisError, OSError."""
    client = redis.from_url(url, socket_timeout=PROBE_S, socket_connect_timeout=PROBE_S)
    try:
        before = time.time()
        seconds, micros = await client.time()
        after = time.time()
        policy = str((await client.info("memory")).get("maxmemory_policy", "not told"))
    finally:
        await client.aclose()
    return [
        ok("redis", "answers"),
        eviction(policy),
        clocks(seconds + micros / 1e6 - (before + after) / 2, (after - before) / 2),
    ]


def eviction(policy: str) -> Finding:
    """Whether Redis keeps what it was given. Pure."""
    if policy == "noeviction":
        return ok("redis eviction", "maxmemory-policy is noeviction")
    return bad(
        "redis eviction",
        f"maxmemory-policy is {policy}: permits and accepted keys may vanish under load",
        "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file",
    )


def clocks(apart_s: float, unsure_s: float) -> Finding:
    """Whether Redis' clock and ours agree, as far as the answer's travel lets us know. Pure."""
    said = f"Redis' clock is {abs(apart_s):.3f} s {'ahead of' if apart_s > 0 else 'behind'} ours (± {unsure_s:.3f} s)"
    if abs(apart_s) - unsure_s > CLOCKS_APART_S:
        return warn("clock", said, "let NTP set the clocks of both machines; the limit is kept by Redis' clock alone")
    return ok("clock", said)


async def postgres(url: str) -> list[Finding]:
    """Whether PostgreSQL answers and has the newest tables. Raises OSError, PostgresError."""
    connection = await asyncpg.connect(url, timeout=PROBE_S)
    try:
        there = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL", timeout=PROBE_S)
        found = (
            await connection.fetchval("SELECT max(version_num) FROM alembic_version", timeout=PROBE_S)
            if there
            else None
        )
    finally:
        await connection.close(timeout=PROBE_S)
    return [ok("postgres", "answers"), migrated(found, await asyncio.to_thread(_newest, url))]


def _newest(url: str) -> str:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - heavy, and needed here only

    from sinks import migrate  # noqa: PLC0415

    return ScriptDirectory.from_config(migrate.config(url)).get_current_head() or ""


def migrated(found: str | None, newest: str) -> Finding:
    """The tables' version against the newest one this gateway knows. Pure."""
    mend = "python -m sinks migrate, with DATABASE_URL set"
    if found is None:
        return bad("tables", "PostgreSQL has none of the gateway's tables", mend)
    if found < newest:
        return bad("tables", f"they are of version {found}, this gateway needs {newest}", mend)
    if found > newest:
        return warn("tables", f"they are of version {found}, newer than this gateway's {newest}", "update this machine")
    return ok("tables", f"migrated to {found}")


async def _role(name: str, url: str) -> list[Finding]:
    def ask() -> Finding:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=PROBE_S):  # noqa: S310 - our own http address
                return ok(name, f"{url} is ready")
        except urllib.error.HTTPError as error:
            return bad(name, f"is not ready: {_missing(error)} is missing", "see the findings above, and its log")
        except (OSError, ValueError) as error:
            return bad(
                name, f"{url} does not answer ({type(error).__name__})", "kifiya status; its log says why it ended"
            )

    return [await asyncio.to_thread(ask)]


async def _producers(intake: str) -> list[Finding]:
    """Whom producers may name, as intake says; where it cannot be asked, as its settings are in this environment."""

    def ask() -> object:
        with urllib.request.urlopen(f"{intake}/readyz", timeout=PROBE_S) as answer:  # noqa: S310 - our own http address
            return json.loads(answer.read(4096)).get("kafka_merchants")

    if not intake:
        try:
            named = parse_merchants(os.environ.get("KAFKA_MERCHANTS", EVERY))
        except ValueError as error:
            return [bad("kafka merchants", f"KAFKA_MERCHANTS {error}", "correct it in the environment")]
        return [admitted(EVERY if named is None else len(named), "here")]
    try:
        return [admitted(await asyncio.to_thread(ask), "in intake")]
    except (OSError, ValueError, AttributeError):
        return []  # that it does not answer is a finding already


def admitted(named: object, where: str) -> Finding:
    """How many merchants a producer may name by KAFKA_MERCHANTS, ``*`` being each. Pure."""
    if named == EVERY:
        return warn(
            "kafka merchants",
            f"KAFKA_MERCHANTS is * {where}: who may write payments.commands may pay and cancel as any merchant",
            "set it, and COMMAND_SECRET for ingress and intake; or leave it where the broker's ACLs admit nobody else",
        )
    return ok("kafka merchants", f"producers may name {named} by KAFKA_MERCHANTS {where}; the others come over HTTP")


def _missing(error: urllib.error.HTTPError) -> str:
    try:
        return ", ".join(map(str, json.loads(error.read(4096)).get("missing") or ["something"]))
    except (ValueError, AttributeError, OSError):
        return "something"
