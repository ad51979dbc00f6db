"""A person's shell for tests: the command line as a process, the stack in its environment, and letters to work on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from aiokafka import ConsumerRecord

from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Publisher, partition_for
from ops.kafka.message import Message
from ops.kafka.reading import present
from ops.local.stack import Stack
from schemas import codec, topics
from schemas.records import DeadLetter, PaymentTask, TaskKind
from streams import dead_letter
from tests.integration.tables import migrate

LANE = "clitest"
LANES = json.dumps({LANE: {"provider": "simulator"}})
TIERS = "1s,2s"


@dataclass
class Answer:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        assert self.status == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Shell:
    """A person's shell with the stack's addresses in its environment."""

    kafka: KafkaSettings
    environment: dict[str, str]

    async def kifiya(self, *arguments: str, **environment: str) -> Answer:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ops.cli.main",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | self.environment | environment,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return Answer(process.returncode or 0, out.decode(), err.decode())

    async def records(self, topic: str) -> list[ConsumerRecord]:
        async with aclosing(present(self.kafka, topic)) as found:
            return [record async for record in found]

    async def publish(self, *messages: Message) -> None:
        async with Publisher(self.kafka) as publisher:
            await publisher.publish(list(messages))


async def shell_on(stack: Stack) -> Shell:
    """A shell whose gateway has one lane, with its topics."""
    kafka = KafkaSettings(stack.kafka_bootstrap, stack.kafka_dialect)
    found = Shell(
        kafka,
        {
            "KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
            "KAFKA_DIALECT": stack.kafka_dialect,
            "REDIS_URL": stack.redis_url,
            "DATABASE_URL": "",
            "INGRESS_URL": "",
            "LANES": LANES,
            "RETRY_TIERS": TIERS,
            "KIFIYA_STATE": "/nonexistent/state.json",
        },
    )
    await create_topics(kafka, topics.declare([LANE], tiers=TIERS.split(",")))
    return found


def task_of(**changes: Any) -> PaymentTask:
    return PaymentTask(
        **{
            "kind": TaskKind.CREATE,
            "payment_id": str(uuid.uuid4()),
            "merchant_id": "acme",
            "idempotency_key": "k",
            "fingerprint": "ab" * 32,
            "amount_minor": 1250,
            "currency": "USD",
            "payment_method": "pm_approve",
            "lane": LANE,
            "accepted_at_ms": time.time_ns() // 1_000_000,
            **changes,
        }
    )


def letter_of(original: bytes, **changes: Any) -> DeadLetter:
    """A letter as dispatch or intake writes it, of an origin of its own."""
    return dead_letter.letter(
        **{
            "reason": "rejected",
            "detail": "card [number] \x1b[31m",
            "stage": "dispatch",
            "topic": topics.lane_topic(LANE),
            "partition": 0,
            "offset": uuid.uuid4().int >> 66,
            "original": original,
            "at_ms": time.time_ns() // 1_000_000,
            **changes,
        }
    )


def review_of(task: PaymentTask, **changes: Any) -> DeadLetter:
    return letter_of(
        codec.encode(task),
        **{
            "payment_id": task.payment_id,
            "merchant_id": task.merchant_id,
            "lane": LANE,
            "attempts": task.attempt,
            **changes,
        },
    )


def home(count: int, *keys: str) -> list[int]:
    return [partition_for(key.encode(), count) for key in keys]


@asynccontextmanager
async def tables_on(stack: Stack) -> AsyncIterator[str]:
    """A database of its own with the gateway's tables."""
    name = f"cli_{uuid.uuid4().hex[:8]}"
    server = stack.database_url.rpartition("/")[0]
    admin = await asyncpg.connect(stack.database_url)
    await admin.execute(f"CREATE DATABASE {name}")
    url = f"{server}/{name}"
    await migrate(url)
    yield url
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
