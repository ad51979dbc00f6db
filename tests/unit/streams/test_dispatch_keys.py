"""Dispatch and the provider's idempotency keys: past their lifetime, and where there are none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas import topics
from schemas.records import State
from streams.dispatch import wall_ms
from streams.providers.port import OutcomeKind
from streams.queues import DUE, FIRST
from tests.unit.streams.world import ORIGIN, TASK, ScriptedProvider, World


async def test_past_the_keys_lifetime_nobody_is_charged_anew_but_a_person_is_asked() -> None:
    """The provider has forgotten the key: what it does not know any more may have been charged all the same."""
    world = World()
    worker = world.worker(ScriptedProvider([OutcomeKind.UNKNOWN, OutcomeKind.ABSENT]))
    await worker.create(TASK, ORIGIN, queue=FIRST)
    worker.now_ms = lambda: wall_ms() + 61_000
    for attempt in (2, 3):
        retry = next(task for task in world.retries() if task.attempt == attempt)
        await worker.create(retry, replace(ORIGIN, topic=topics.due_topic("simulator")), queue=DUE)
    last = world.events()[max(world.events())]
    assert (last.state, last.reason) == (State.REVIEW, "key-expired")
    (message,) = (m for m in world.published if m.topic == topics.DEAD_LETTER)
    assert message.key == TASK.payment_id.encode()


@pytest.mark.parametrize(
    ("answers", "end"),
    [
        ([OutcomeKind.RETRYABLE, OutcomeKind.ABSENT], (State.REVIEW, "no-idempotency")),
        ([OutcomeKind.UNKNOWN, OutcomeKind.ABSENT], (State.REVIEW, "no-idempotency")),
        ([OutcomeKind.UNKNOWN, OutcomeKind.APPROVED], (State.COMPLETED, None)),
        ([OutcomeKind.RETRYABLE, OutcomeKind.DECLINED], (State.FAILED, "declined")),
    ],
)
async def test_a_provider_without_keys_is_sent_a_charge_once_ever(
    answers: list[OutcomeKind], end: tuple[State, str | None]
) -> None:
    """Even where it said that it is busy: whether it has charged only it knows, and it is asked."""
    world = World()
    provider = ScriptedProvider(list(answers), key_lifetime_s=None)
    worker = world.worker(provider)
    await worker.create(TASK, ORIGIN, queue=FIRST)
    for attempt in (2, 3):
        for retry in (task for task in world.retries() if task.attempt == attempt):
            await worker.create(retry, replace(ORIGIN, topic=topics.due_topic("simulator")), queue=DUE)
    last = world.events()[max(world.events())]
    assert (last.state, last.reason) == end
    assert provider.calls == ["charge", "status"]
