"""Replay of dead letters: what goes where, what is refused, and that the ledger lets nobody be charged twice by it."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from ops import letters
from ops.kafka.message import Message
from ops.letters import Found
from ops.replay import Audit, Plan, Refused, plan, replayed
from schemas import codec, identity, topics
from schemas.records import DeadLetter, PaymentTask, State, TaskKind
from schemas.seal import HEADER, Seals
from streams import dead_letter
from streams.origin import Origin
from streams.providers.port import OutcomeKind
from streams.queues import DUE
from tests.unit.streams.world import ORIGIN, TASK, ScriptedProvider, World

AUDIT = Audit("replay-1", "ada", "grace")
JSON = (
    b'{"type": "create", "idempotency_key": "k", "merchant_id": "shop", "amount": "1", "currency": "USD",'
    b' "payment_method": "pm"}'
)


def found(original: bytes, **changes: Any) -> Found:
    letter = dead_letter.letter(
        **{
            "reason": "rejected",
            "detail": "",
            "stage": "dispatch",
            "topic": topics.lane_topic("simulator"),
            "partition": 3,
            "offset": 17,
            "original": original,
            "payment_id": TASK.payment_id,
            "attempts": 2,
            "at_ms": 1,
            **changes,
        }
    )
    return Found(letter, "0/0", {}, letter.attempts)


def task_in(message: Message) -> PaymentTask:
    return codec.decode(message.value, PaymentTask)


@pytest.mark.parametrize(
    ("task", "changes", "topic", "attempt"),
    [
        (replace(TASK, attempt=2), {"attempts": 2}, topics.due_topic("simulator"), 3),
        (replace(TASK, attempt=3), {"attempts": 0, "reason": "internal-error"}, topics.due_topic("simulator"), 3),
        (TASK, {"attempts": 0, "reason": "internal-error"}, topics.due_topic("simulator"), 1),
        (replace(TASK, attempt=3), {"attempts": 2, "stage": "delay"}, topics.due_topic("simulator"), 3),
        (replace(TASK, kind=TaskKind.CANCEL), {"reason": "internal-error"}, topics.cancel_topic("simulator"), 1),
    ],
)
def test_a_task_goes_on_as_the_call_after_the_last_one(
    task: PaymentTask, changes: dict[str, Any], topic: str, attempt: int
) -> None:
    message = replayed(found(codec.encode(replace(task, not_before_ms=9)), **changes), AUDIT)
    back = task_in(message)
    assert (message.topic, message.key, back.attempt) == (topic, TASK.payment_id.encode(), attempt)
    assert (back.payment_id, back.replay_id, back.fingerprint) == (TASK.payment_id, "replay-1", TASK.fingerprint)
    assert back.kind is TaskKind.CANCEL or back.not_before_ms == 0


def test_a_replay_says_who_did_it_and_who_agreed() -> None:
    message = replayed(found(codec.encode(TASK)), AUDIT)
    assert dict(message.headers) == {
        "replay-id": b"replay-1",
        "replay-of": b"payments.lane.simulator/3/17",
        "replayed-by": b"ada",
        "approved-by": b"grace",
    }


@pytest.mark.parametrize(
    ("original", "key"),
    [(JSON, identity.payment_id("shop", "k").encode()), (b"\x01junk", None), (b"{", None), (b"", None)],
)
def test_a_command_goes_to_intake_again_byte_by_byte(original: bytes, key: bytes | None) -> None:
    message = replayed(found(original, stage="intake", topic=topics.COMMANDS, payment_id=None), AUDIT)
    assert (message.topic, message.key, message.value) == (topics.COMMANDS, key, original)


NOW_MS = 1_800_000_000_000
SEALS = Seals(["a secret of the tests, longer than 32 bytes"])
SEAL = SEALS.header(JSON, NOW_MS)[1]


@pytest.mark.parametrize(
    ("headers", "renewed", "kept"),
    [
        ({}, None, None),
        ({"kifiya-attempts": b"0"}, None, None),
        ({HEADER: SEAL}, SEALS.header(JSON, NOW_MS + 9)[1], SEAL),
        ({HEADER: b"forged"}, b"forged", b"forged"),
    ],
)
def test_a_command_keeps_its_seal_and_a_replay_makes_none(
    headers: dict[str, bytes], renewed: bytes | None, kept: bytes | None
) -> None:
    letter = replace(found(JSON, stage="intake", topic=topics.COMMANDS, payment_id=None), headers=headers)
    again = replayed(letter, AUDIT, lambda value, old: SEALS.renewed(value, old, NOW_MS + 9))
    assert dict(again.headers).get(HEADER) == renewed
    assert dict(replayed(letter, AUDIT).headers).get(HEADER) == kept
    assert dict(again.headers)["replay-id"] == b"replay-1"


@pytest.mark.parametrize(
    ("original", "changes", "why"),
    [
        (b"\x00junk", {}, "no payment task"),
        (b"\x00junk", {"stage": "delay"}, "no payment task"),
        (codec.encode(TASK), {"reason": "fingerprint-conflict", "attempts": 0}, "did not come from intake"),
        (codec.encode(TASK), {"reason": "not-home", "attempts": 0}, "did not come from intake"),
        (codec.encode(TASK), {"stage": "sink"}, "no payment to put back"),
        (JSON, {"stage": "intake", "keep_original": False}, "only 0 of its"),
        (JSON + b" " * 70_000, {"stage": "intake"}, "only 4096 of its"),
    ],
)
def test_what_cannot_be_put_back_is_refused_with_the_reason(original: bytes, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        replayed(found(original, **changes), AUDIT)


def planned(wanted: list[Found], **changes: Any) -> Plan:
    given = {"newest": letters.standing(wanted), "final": frozenset(), "existing": {topics.due_topic("simulator")}}
    return plan(wanted, **{**given, **changes}, audit=AUDIT)


def test_a_final_payment_is_left_as_it_is() -> None:
    letter = found(codec.encode(TASK))
    assert planned([letter], final={TASK.payment_id}).final == (letter,)


def test_a_conflicting_command_is_not_taken_for_the_healthy_payment_with_its_id() -> None:
    letter = found(JSON, stage="intake", reason="idempotency-conflict", topic=topics.COMMANDS)
    todo = planned([letter], final={TASK.payment_id}, existing={topics.COMMANDS})
    assert (len(todo.sends), todo.final) == (1, ())


def test_a_lane_that_is_gone_is_refused_and_named() -> None:
    ((_, why),) = planned([found(codec.encode(TASK))], existing=set()).refused
    assert "payments.lane.simulator.due" in why


def test_only_the_letter_after_the_last_call_is_replayed() -> None:
    old = found(codec.encode(TASK), at_ms=9)
    new = found(codec.encode(replace(TASK, attempt=5)), attempts=5, offset=18, at_ms=2)
    todo = planned([old, new])
    assert [item.origin for item, _ in todo.sends] == [new.origin]
    assert todo.refused[0][0] is old
    assert new.origin in todo.refused[0][1]
    assert letters.current([old, new]) == [new]


class Lane:
    """A world in which the letters that dispatch published are replayed, as a person would, onto the due topic."""

    def __init__(self) -> None:
        self.world = World()
        self.offset = 100

    async def work(self, task: PaymentTask, *answers: OutcomeKind, then_retries: bool = True) -> list[str]:
        """Run a task and the retries that follow; the calls made."""
        provider = ScriptedProvider(list(answers))
        worker = self.world.worker(provider)
        attempt = task.attempt
        await worker.create(task, self._due(), queue=DUE)
        while then_retries and (found := [each for each in self.world.retries() if each.attempt > attempt]):
            attempt = found[0].attempt
            await worker.create(found[0], self._due(), queue=DUE)
        return provider.calls

    def _due(self) -> Origin:
        self.offset += 1
        return Origin(topics.due_topic("simulator"), ORIGIN.partition, self.offset, b"")

    def replays(self) -> list[PaymentTask]:
        """The replay of every letter that counts, with a new replay id."""
        seen = [
            Found(codec.decode(message.value, DeadLetter), "0/0", dict(message.headers))
            for message in self.world.published
            if message.topic == topics.DEAD_LETTER
        ]
        counted = [replace(item, begun=item.letter.attempts) for item in letters.unique(seen)]
        audit = Audit(str(uuid.uuid4()), "ada")
        todo = plan(
            letters.current(counted),
            newest=letters.standing(counted),
            final=frozenset(),
            existing={topics.due_topic("simulator")},
            audit=audit,
        )
        return [task_in(message) for _, message in todo.sends]

    def state(self) -> State:
        """Where the payment stands now."""
        events = self.world.events()
        return events[max(events)].state


@pytest.mark.parametrize(
    ("first", "after", "calls", "state"),
    [
        ([OutcomeKind.REJECTED], [OutcomeKind.APPROVED], ["status"], State.COMPLETED),
        ([OutcomeKind.REJECTED], [OutcomeKind.ABSENT, OutcomeKind.APPROVED], ["status", "charge"], State.COMPLETED),
        ([OutcomeKind.REJECTED], [OutcomeKind.DECLINED], ["status"], State.FAILED),
        ([OutcomeKind.REJECTED], [OutcomeKind.REJECTED], ["status"], State.REVIEW),
        ([OutcomeKind.UNKNOWN] * 3, [OutcomeKind.APPROVED], ["status"], State.COMPLETED),
        ([OutcomeKind.RETRYABLE] * 3, [OutcomeKind.UNKNOWN] * 3, ["status"] * 3, State.REVIEW),
    ],
)
async def test_a_replayed_review_asks_the_provider_first_and_has_a_budget_of_its_own(
    first: list[OutcomeKind], after: list[OutcomeKind], calls: list[str], state: State
) -> None:
    lane = Lane()
    await lane.work(TASK, *first)
    assert lane.state() is State.REVIEW
    (task,) = lane.replays()
    assert await lane.work(task, *after) == calls
    assert lane.state() is state


async def test_a_second_review_is_another_letter_and_can_be_replayed_again() -> None:
    lane = Lane()
    await lane.work(TASK, OutcomeKind.REJECTED)
    (first,) = lane.replays()
    await lane.work(first, OutcomeKind.REJECTED)
    (second,) = lane.replays()
    assert second.attempt == first.attempt + 1
    assert await lane.work(second, OutcomeKind.APPROVED) == ["status"]
    assert lane.state() is State.COMPLETED


async def test_replaying_everything_three_times_charges_nobody_again() -> None:
    lane = Lane()
    await lane.work(TASK, OutcomeKind.REJECTED)
    (one,), (two,), (three,) = lane.replays(), lane.replays(), lane.replays()
    assert len({one.replay_id, two.replay_id, three.replay_id}) == 3
    calls = await lane.work(one, OutcomeKind.ABSENT, OutcomeKind.APPROVED)
    calls += await lane.work(two, then_retries=False)
    calls += await lane.work(three, then_retries=False)
    assert calls == ["status", "charge"]
    assert lane.state() is State.COMPLETED


async def test_a_replay_that_overtakes_the_retry_of_another_one_makes_no_call_of_its_own() -> None:
    lane = Lane()
    await lane.work(TASK, OutcomeKind.REJECTED)
    (one,), (two,) = lane.replays(), lane.replays()
    assert await lane.work(one, OutcomeKind.ABSENT, then_retries=False) == ["status"]
    assert await lane.work(two, OutcomeKind.APPROVED, then_retries=False) == []
    (retry,) = lane.world.retries()
    assert await lane.work(retry, OutcomeKind.APPROVED) == ["charge"]


async def test_a_review_made_without_a_call_is_replayed_as_the_call_it_did_not_make() -> None:
    """The key expired: nothing was sent, so the letter counts the calls before it."""
    lane = Lane()
    await lane.work(TASK, OutcomeKind.UNKNOWN, OutcomeKind.ABSENT, then_retries=False)
    retry = lane.world.retries()[-1]
    provider = ScriptedProvider([OutcomeKind.ABSENT])
    await lane.world.worker(provider).create(retry, ORIGIN, queue=DUE)
    late = lane.world.worker(ScriptedProvider([]))
    late.now_ms = lambda: 9_000_000_000_000
    await late.create(lane.world.retries()[-1], ORIGIN, queue=DUE)
    assert lane.state() is State.REVIEW
    (task,) = lane.replays()
    assert task.attempt == 3
    assert await lane.work(task, OutcomeKind.APPROVED) == ["status"]
    assert lane.state() is State.COMPLETED
