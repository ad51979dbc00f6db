"""What the chaos cases do to the services: failovers that lose the last writes, a clock that jumps, Kafka's nodes."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as redis
from aiokafka.admin import AIOKafkaAdminClient

from ops.chaos import case as cases
from ops.chaos.case import Deed
from ops.chaos.clocks import Clocks
from ops.chaos.proxy import Mode
from ops.chaos.services import Services, started
from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Message, Publisher
from ops.local import child
from schemas import topics
from tests import faketime


@asynccontextmanager
async def services_of(**changes: Any) -> AsyncIterator[tuple[Services, Clocks]]:
    case = cases.parse(json.dumps({"name": "a", "purpose": "b", "stack": "embedded"} | changes))
    data = child.run_folder("kifiya-test-")
    try:
        clocks = Clocks(data, (fault.what for fault in case.faults if fault.do is Deed.CLOCK))
        async with AsyncExitStack() as exits:
            yield await started(case, data, clocks, exits), clocks
    finally:
        shutil.rmtree(data, ignore_errors=True)


async def ask(url: str, *command: Any) -> Any:
    async with redis.from_url(url, socket_timeout=5) as client:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]


@pytest.mark.alone
async def test_a_failover_keeps_what_was_there_when_it_began_and_loses_what_came_after() -> None:
    async with services_of(faults=[{"do": "failover", "what": "redis", "at_s": 1}]) as (found, _):
        assert found.pair is not None
        url, pids, runs = found.urls["REDIS_URL"], [], []
        async with redis.from_url(url, socket_timeout=5) as client:
            for number in range(3):
                pids.append(found.actors["redis"].pid)
                runs.append((await client.info("server"))["run_id"])
                await client.set(f"early-{number}", "1")
                await found.pair.cut()
                await client.set(f"late-{number}", "1")
                assert await ask(found.stack.redis_url, "EXISTS", f"late-{number}") == 1
                await found.pair.switch()
                with pytest.raises(redis.ConnectionError):  # the connection that was there is cut
                    await client.execute_command("PING")  # type: ignore[no-untyped-call]
                assert await client.exists(f"early-{number}") == 1
                assert await client.exists(f"late-{number}") == 0
                assert await ask(found.stack.redis_url, "EXISTS", f"late-{number}") == 0
                assert (await client.info("replication"))["role"] == "master"
        assert len(set(pids)) == len(set(runs)) == 3
        assert None not in pids
        found.actors["redis"].kill()  # a kill takes the one that serves now
        await found.actors["redis"].revive()
        assert await ask(url, "DBSIZE") == 0


@faketime.needed
@pytest.mark.alone
async def test_the_clock_of_redis_jumps_and_comes_back() -> None:
    faults = [{"do": "clock", "what": "redis", "at_s": 1, "ms": 1}]
    async with services_of(faults=faults) as (found, clocks):
        for ms in (0, 150, -150, 3_600_000, -3_600_000, 0):
            clocks.jump("redis", ms)
            before = time.time()
            seconds, micros = await ask(found.urls["REDIS_URL"], "TIME")
            off_s = int(seconds) + int(micros) / 1e6 - before
            assert ms / 1000 <= off_s <= ms / 1000 + (time.time() - before) + 0.001


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(300)
async def test_three_nodes_hold_each_record_three_times_and_miss_any_one() -> None:
    faults = [{"do": "drop-answers", "what": "kafka-2", "at_s": 1}, {"do": "kill", "what": "kafka", "at_s": 1}]
    async with services_of(stack="apache", kafka_nodes=3, faults=faults) as (found, _):
        kafka = KafkaSettings(found.stack.kafka_bootstrap)
        declared = topics.declare(["one"], tiers=["1s"])
        await create_topics(kafka, declared, replication=3, timeout_s=60)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        try:
            described = await admin.describe_topics([each.name for each in declared])
        finally:
            await admin.close()
        assert {len(part["replicas"]) for each in described for part in each["partitions"]} == {3}
        names = ["kafka-1", "kafka-2", "kafka-3"]
        assert [name for name in found.actors if name.startswith("kafka")] == names
        assert {*names, "kafka"} <= found.proxies.keys()
        async with Publisher(kafka) as publisher:
            batch = [Message(topics.COMMANDS, b"%d" % number, b"x") for number in range(24)]
            await publisher.publish(batch)
            [way] = found.proxies["kafka-2"]
            way.become(Mode.DROP_ANSWERS)
            storing = asyncio.create_task(publisher.publish(batch, timeout_s=60))
            async with asyncio.timeout(30):
                while not way.dropped:
                    await asyncio.sleep(0.05)
            assert all(other.dropped == 0 for other in found.proxies["kafka"] if other is not way)
            way.become(Mode.OPEN)
            await storing
            for name in names:
                found.actors[name].kill()
                await publisher.publish(batch, timeout_s=30)
                await found.actors[name].revive()
