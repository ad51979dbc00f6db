"""What every bench stands on: its stack, its processes and its waits, all of which end with it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings
from ops.local import child
from ops.local.child import Child
from ops.local.ports import free_port
from ops.local.stack import Stack
from schemas import topics
from schemas.api_key import SANDBOX_PEPPER
from schemas.topics import Topic

READY_S: Final = 60.0
STOP_S: Final = 15.0
LANE: Final = "simulator"


class NotMeasured(Exception):
    """A figure could not be had; the message says what was waited for, and how long."""


@dataclass(frozen=True, slots=True)
class Bench:
    """How to measure: on which stack, how often, and briefly or not. ``log`` is what the processes write to."""

    kind: Literal["apache", "embedded"]
    runs: int
    quick: bool
    log: Path

    def size(self, full: int, quick: int) -> int:
        """The one or the other."""
        return quick if self.quick else full

    def say(self, what: str) -> None:
        """One line of progress, where it does not disturb the table."""
        sys.stderr.write(f"  {what}\n")
        sys.stderr.flush()


async def until(check: Callable[[], Awaitable[bool]], what: str, within_s: float, every_s: float = 0.2) -> None:
    """Wait until the check is true. Raises NotMeasured that says what did not come."""
    end = time.monotonic() + within_s
    while not await check():
        if time.monotonic() > end:
            raise NotMeasured(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(every_s)


def kafka_of(stack: Stack) -> KafkaSettings:
    """How to reach this stack's Kafka."""
    return KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect)


async def declare(kafka: KafkaSettings, *more: Topic) -> None:
    """Have the gateway's topics, and these."""
    await create_topics(kafka, [*topics.declare([LANE]), *more])


def environment(stack: Stack, data: Path, **more: str) -> dict[str, str]:
    """The settings of a role on this stack."""
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "KAFKA_DIALECT": stack.kafka_dialect,
        "REDIS_URL": stack.redis_url,
        "DATABASE_URL": stack.database_url,
        "API_KEY_PEPPER": SANDBOX_PEPPER,
        "KAFKA_MERCHANTS": "bench",
        "COMMAND_SECRET": "a secret of the bench that is longer than 32 bytes",
        "RATE_LIMIT": "1000000/second",
        "LANES": json.dumps({LANE: {"provider": "simulator", "limit": 2}}),
        "DATA_DIR": str(data),
        "ADMIN_HOST": "127.0.0.1",
        **more,
    }


async def answers(url: str) -> bool:
    """Whether this address answers 200. Raises OSError while nobody listens."""

    def ask() -> bool:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http address
            return bool(answer.status == 200)  # noqa: PLR2004

    return await asyncio.to_thread(ask)


@asynccontextmanager
async def process(
    bench: Bench, name: str, arguments: Sequence[str], env: Mapping[str, str], probe: Callable[[], Awaitable[bool]]
) -> AsyncIterator[Child]:
    """``python -m`` these arguments, serving during the block. Raises StartError."""
    found = Child(
        name, [sys.executable, "-P", "-m", *arguments], probe=probe, log=bench.log, env=env, drop_rights=False
    )
    found.spawn()
    try:
        await found.ready(READY_S)
        yield found
    finally:
        await found.stop(STOP_S)


@dataclass(frozen=True, slots=True)
class Role:
    """A running role."""

    pid: int
    metrics: str


@asynccontextmanager
async def role(bench: Bench, stack: Stack, data: Path, *arguments: str, **more: str) -> AsyncIterator[Role]:
    """One role, ready: its partitions are assigned and recovered. Raises StartError."""
    port = free_port()
    admin = f"http://127.0.0.1:{port}"

    async def probe() -> bool:
        return await answers(f"{admin}/readyz")

    env = environment(stack, data, ADMIN_PORT=str(port), **more)
    async with process(bench, " ".join(arguments), arguments, env, probe) as found:
        yield Role(found.pid or 0, f"{admin}/metrics")


async def output(arguments: Sequence[str], within_s: float) -> dict[str, Any]:
    """What ``python -m`` these arguments prints, as JSON; it is ended where it takes too long. Raises NotMeasured."""
    found = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", *arguments,
        stdout=asyncio.subprocess.PIPE, preexec_fn=child.bind_to_parent,
    )  # fmt: skip
    try:
        async with asyncio.timeout(within_s):
            said, _ = await found.communicate()
    except TimeoutError as error:
        raise NotMeasured(f"not within {within_s:g} s: the answer of {' '.join(arguments[:2])}") from error
    finally:
        if found.returncode is None:
            found.kill()
            await found.wait()
    if found.returncode != 0:
        raise NotMeasured(f"{' '.join(arguments[:2])} ended with {found.returncode}")
    answer: dict[str, Any] = json.loads(said)
    return answer
