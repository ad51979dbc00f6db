"""Dispatch as processes on a real broker: kills, moved partitions, a stopped worker lose nothing, charge once."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Message, Publisher
from ops.local.ports import free_port
from schemas import topics
from schemas.records import PaymentEvent, State
from streams import payment
from streams.payment import Call
from streams.providers.port import Outcome, OutcomeKind
from tests.integration.archived import settle, url
from tests.integration.roles import (
    OUTPUTS,
    PARTITIONS,
    Arrived,
    all_settled,
    environment,
    last_values,
    metrics,
    process,
    settings_of,
    simulator,
    task_of,
    to_lane,
    until,
    watching,
)

if TYPE_CHECKING:
    from ops.local.stack import Stack

pytestmark = pytest.mark.kafka
__all__ = ["url"]  # a fixture
TIERS = ("1s", "2s")


@pytest.fixture
async def kafka(stack: Stack) -> KafkaSettings:
    return settings_of(stack)


async def new_lane(kafka: KafkaSettings) -> str:
    """A lane of its own for each test."""
    lane = f"t{uuid.uuid4().hex[:8]}"
    await create_topics(kafka, topics.declare([lane], tiers=TIERS, lane_partitions=PARTITIONS))
    return lane


def roles_env(stack: Stack, lane: str, url: str, **more: Any) -> dict[str, str]:
    return environment(stack, {lane: {"provider": "simulator", "url": url, "limit": 200, "window_ms": 1000, **more}})


@pytest.mark.long
async def test_a_payment_settled_by_another_worker_is_never_called_again(stack: Stack, kafka: KafkaSettings) -> None:
    """Partitions move to a second worker and back; what it settled meanwhile is known to the first one."""
    lane = await new_lane(kafka)
    async with simulator() as provider, Publisher(kafka) as publisher, watching(kafka, OUTPUTS) as seen:
        env = roles_env(stack, lane, provider.url)
        async with process("streams", "dispatch", "--lane", lane, **env):
            early = [task_of(lane, n, payment_method="pm_503_twice") for n in range(PARTITIONS)]
            await publisher.publish([to_lane(task) for task in early])
            await until(lambda: seen.states(t.payment_id for t in early)[State.PENDING] == PARTITIONS, "first attempts")
            async with process("streams", "dispatch", "--lane", lane, **env), process("streams", "delay", **env):
                await until(
                    lambda: seen.states(t.payment_id for t in early)[State.COMPLETED] == PARTITIONS, "retries", 90
                )
            before = await provider.calls()
            late = [task_of(lane, n) for n in range(PARTITIONS)]
            again = [to_lane(replace(t, attempt=n), topics.due_topic(lane)) for t in early for n in (1, 2, 3, 4)]
            await publisher.publish(again + [to_lane(task) for task in late])
            await until(lambda: seen.states(t.payment_id for t in late)[State.COMPLETED] == PARTITIONS, "late ones", 90)
        after = await provider.calls()
        assert {key: after[key] for key in before} == before
        assert await provider.charges() == dict.fromkeys([t.payment_id for t in early + late], 1)


@pytest.mark.long
async def test_a_zombies_late_entry_is_outlived_by_the_one_that_counts(stack: Stack, kafka: KafkaSettings) -> None:
    """The changelog ends with a stale entry: recovery goes by the final one, and writes it back for the compaction."""
    lane = await new_lane(kafka)
    changelog = topics.changelog_topic(topics.dispatch_app(lane), topics.LEDGER_TABLE)
    async with simulator() as provider, Publisher(kafka) as publisher, watching(kafka, OUTPUTS) as seen:
        task, other = task_of(lane, 3), task_of(lane, 3)
        stale = payment.settle(
            payment.intend(payment.fresh(task), task, Call.CHARGE, 1),
            Outcome(kind=OutcomeKind.UNKNOWN),
            before=payment.fresh(task),
            retry=payment.Retry("1s", 1),
            now_ms=2,
            rules=payment.Rules(),
        )
        final = replace(stale, version=5, state=State.COMPLETED, outcome=OutcomeKind.APPROVED, retry_tier=None)
        key = task.payment_id.encode()
        for entry in (final, stale):
            await publisher.publish([Message(changelog, key, payment.encode(entry), partition=3)])
        async with process("streams", "dispatch", "--lane", lane, **roles_env(stack, lane, provider.url)):
            late = to_lane(replace(task, attempt=2), topics.due_topic(lane))
            await publisher.publish([late, to_lane(other)])
            await until(lambda: seen.state(task.payment_id) is State.COMPLETED, "the final state is published again")
            await until(lambda: seen.state(other.payment_id) is State.COMPLETED, "the other payment")
        assert (await provider.calls())["GET", task.payment_id] == 0
        assert list(await provider.charges()) == [other.payment_id]
        value = (await last_values(kafka, changelog, 3))[key]
        assert value is not None
        assert payment.decode(value) == final


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_workers_that_end_under_load_lose_nothing_and_charge_nobody_twice(
    stack: Stack, kafka: KafkaSettings, how: signal.Signals
) -> None:
    lane = await new_lane(kafka)
    async with simulator(limit=40) as provider, Publisher(kafka) as publisher, watching(kafka, OUTPUTS) as seen:
        env = roles_env(stack, lane, provider.url, limit=40)
        tasks = [task_of(lane, payment_method=("pm_approve", "pm_503_twice")[n % 10 == 0]) for n in range(150)]
        ids = [task.payment_id for task in tasks]
        await publisher.publish([to_lane(task) for task in tasks])
        async with process("streams", "delay", **env):
            for share in (20, 70):
                async with process("streams", "dispatch", "--lane", lane, **env) as worker:
                    await all_settled(seen, ids, share)
                    worker.send_signal(how)
                    assert await worker.wait() == (0 if how is signal.SIGTERM else -how)
            async with process("streams", "dispatch", "--lane", lane, **env):
                await all_settled(seen, ids)
        assert await provider.charges() == dict.fromkeys(ids, 1)
        assert await provider.most_in_a_window() <= 40
        assert not seen.letters
        assert_one_story(seen, ids)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_worker_that_was_stopped_past_its_session_makes_no_call_of_another_owner(
    stack: Stack, kafka: KafkaSettings
) -> None:
    lane = await new_lane(kafka)
    async with simulator(limit=40) as provider, Publisher(kafka) as publisher, watching(kafka, OUTPUTS) as seen:
        env = roles_env(stack, lane, provider.url, limit=40)
        first = [task_of(lane, n % PARTITIONS) for n in range(2 * PARTITIONS)]
        async with (
            process("streams", "dispatch", "--lane", lane, **env) as zombie,
            process("streams", "delay", **env),
        ):
            await publisher.publish([to_lane(task) for task in first])
            await all_settled(seen, [t.payment_id for t in first])
            tasks = [task_of(lane, n % PARTITIONS) for n in range(240)]
            ids = [task.payment_id for task in tasks]
            await publisher.publish([to_lane(task) for task in tasks])
            await all_settled(seen, ids, 30)
            zombie.send_signal(signal.SIGSTOP)
            async with process("streams", "dispatch", "--lane", lane, **env):
                await all_settled(seen, ids, 120)  # by another worker
                zombie.send_signal(signal.SIGCONT)
                await all_settled(seen, ids)
                # An ack that did not come while it stood still ends it in good order: it is started anew.
                assert zombie.returncode in {None, 1}
        assert await provider.charges() == dict.fromkeys(ids + [t.payment_id for t in first], 1)
        assert await provider.most_in_a_window() <= 40
        assert_one_story(seen, ids)


def at_least(seen: Arrived, ids: list[str], count: int) -> bool:
    """Whether so many of these payments are settled."""
    return seen.states(ids)[State.COMPLETED] >= count


def assert_one_story(seen: Arrived, ids: list[str]) -> None:
    """Of each payment and version all events say the same, and no version is missing."""
    for payment_id in ids:
        told: dict[int, PaymentEvent] = {}
        for event in seen.events[payment_id]:
            assert told.setdefault(event.version, event) == event
        assert sorted(told) == list(range(2, max(told) + 1))


@pytest.mark.long
@pytest.mark.alone
async def test_almost_every_permit_is_used_and_an_idle_lane_answers_at_once(stack: Stack, kafka: KafkaSettings) -> None:
    lane = await new_lane(kafka)
    async with simulator() as provider, Publisher(kafka, linger_ms=0) as publisher, watching(kafka, OUTPUTS) as seen:
        port = free_port()
        env = roles_env(stack, lane, provider.url) | {"ADMIN_PORT": str(port)}
        async with process("streams", "dispatch", "--lane", lane, **env):
            took: list[float] = []
            for number in range(120):
                task = task_of(lane, number % PARTITIONS)
                begun = time.monotonic()
                await publisher.publish([to_lane(task)])
                await until(functools.partial(at_least, seen, [task.payment_id], 1), "one payment")
                took.append(time.monotonic() - begun)
            found = await metrics(port)
        granted = found[f'kifiya_permits_granted_total{{lane="{lane}"}}']
        late = found.get(f'kifiya_permits_not_used_total{{lane="{lane}",why="late"}}', 0.0)
        sys.stderr.write(f"granted {granted:g}, late {late:g}, median {sorted(took)[60]:.3f} s\n")
        assert late <= 0.05 * granted
        assert sorted(took)[60] < 1.0


@pytest.mark.long
async def test_records_that_arrive_while_a_worker_recovers_are_handled(stack: Stack, kafka: KafkaSettings) -> None:
    """Faust empties its queues when it lets records flow after a recovery; what was there by then must not be lost."""
    lane = await new_lane(kafka)
    changelog = topics.changelog_topic(topics.dispatch_app(lane), topics.LEDGER_TABLE)
    async with simulator() as provider, Publisher(kafka) as publisher, watching(kafka, OUTPUTS) as seen:
        old = task_of(lane, 0)
        known = payment.encode(payment.cancel(payment.fresh(old), "c/0/0", 1))
        await publisher.publish([Message(changelog, old.payment_id.encode(), known, partition=0)])
        tasks = [task_of(lane, n % PARTITIONS) for n in range(4 * PARTITIONS)]
        await publisher.publish([to_lane(task) for task in tasks])
        env = roles_env(stack, lane, provider.url, limit=1000)
        async with process("tests.integration.slow_seek", "dispatch", "--lane", lane, **env):
            ids = [task.payment_id for task in tasks]
            await until(lambda: seen.states(ids)[State.COMPLETED] == len(ids), "all are settled", 30)


@pytest.mark.long
async def test_what_the_ledger_forgets_is_charged_again_by_nobody(stack: Stack, kafka: KafkaSettings, url: str) -> None:
    """A duplicate that comes after the windows of intake and ledger finds the payment in PostgreSQL."""
    lane = await new_lane(kafka)
    changelog = topics.changelog_topic(topics.dispatch_app(lane), topics.LEDGER_TABLE)
    async with simulator() as provider, Publisher(kafka) as publisher, watching(kafka, OUTPUTS) as seen:
        env = roles_env(stack, lane, provider.url)
        env |= {"DEDUP_WINDOW_S": "1", "LEDGER_WINDOW_S": "1", "DATABASE_URL": url}
        async with process("streams", "dispatch", "--lane", lane, **env):
            old = task_of(lane, 4, fingerprint="f1")
            await publisher.publish([to_lane(old)])
            await until(functools.partial(at_least, seen, [old.payment_id], 1), "it is settled")
            # 3, or more where a permit was too late for its call and another one was asked for.
            settled = max(event.version for event in seen.events[old.payment_id])
            end = time.monotonic() + 30
            while (await last_values(kafka, changelog, 4)).get(old.payment_id.encode(), b"") is not None:
                assert time.monotonic() < end, "it is never forgotten"
                await asyncio.sleep(0.2)
            await settle(url, version=settled, payment_id=old.payment_id)
            fresh = task_of(lane, 4)
            await publisher.publish([to_lane(old), to_lane(fresh)])
            await until(functools.partial(at_least, seen, [fresh.payment_id], 1), "the one after it")
        assert (await provider.calls())["POST", old.payment_id] == 1
        assert max(event.version for event in seen.events[old.payment_id]) == settled
