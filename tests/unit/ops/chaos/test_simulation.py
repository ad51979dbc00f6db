"""The simulated gateway keeps its promises whatever the seed, and breaks them when it is broken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from ops.chaos.sim import worker, world
from ops.chaos.sim.bank import Adapter
from ops.chaos.sim.loop import Loop, Process, running, within
from ops.kafka.lease import Lease
from ops.kafka.message import Message
from schemas.records import EventType, State
from streams import dedup, payment
from streams.intake import Intake
from streams.limiter.clock import Steadiness
from streams.limiter.port import Permit
from streams.limiter.sliding_log import Granted, SlidingLog
from streams.locks import Locks
from streams.outbox import Outbox
from streams.stores.ledger import TableLedger

SEEDS = 150
MOST = 400
"""Lives within which each defect shows itself."""

pytestmark = pytest.mark.usefixtures("quiet")

Patch = pytest.MonkeyPatch


def test_every_life_keeps_the_promises() -> None:
    for seed in range(SEEDS):
        life = world.live(seed)
        assert not life.violations, f"seed {seed}: {life.violations}\n" + "\n".join(life.trace)


@pytest.mark.parametrize("seed", [118, 250, 1775])
def test_a_worker_that_died_between_event_and_result_has_time_to_come_back(seed: int) -> None:
    assert not world.live(seed).violations


@pytest.mark.parametrize(("answered_s", "late"), [(0.2, False), (0.49, False), (0.7, True), (1.9, True), (3.0, True)])
def test_who_was_stopped_past_its_time_is_late_though_the_answer_has_come(answered_s: float, late: bool) -> None:
    """As asyncio has it: the timer that was due first runs first."""

    async def work() -> bool:
        process, answer = Process("asks"), running().create_future()
        running().call_world(0.05, lambda: setattr(process, "stopped_until", 2.0))
        running().call_world(answered_s, lambda: None if answer.done() else answer.set_result(None))
        asking = process.spawn(within(0.5, answer))
        await asyncio.wait({asking})
        return isinstance(asking.exception(), TimeoutError)

    loop = Loop()
    assert loop.live(work()) is late
    loop.close()


def test_a_seed_is_lived_the_same_way_again() -> None:
    assert world.live(7) == world.live(7)
    assert world.live(7).evidence != world.live(8).evidence


def a_token_bucket(patch: Patch) -> None:
    def reserve(self: SlidingLog, now_us: int, lead_us: int = 0) -> Granted:
        past = [slot for slot in self.slots or [] if slot // self.window_us == (now_us + lead_us) // self.window_us]
        ahead = 0 if len(past) < self.limit else self.window_us - (now_us + lead_us) % self.window_us
        slot = now_us + lead_us + ahead
        self.slots = [*(self.slots or [0] * self.limit)[1:], slot]
        return Granted(slot)

    patch.setattr(SlidingLog, "reserve", reserve)


def a_missing_key_is_a_fresh_start(patch: Patch) -> None:
    whole = SlidingLog.reserve

    def reserve(self: SlidingLog, now_us: int, lead_us: int = 0) -> Any:
        self.slots = self.slots or [0] * self.limit
        return whole(self, now_us, lead_us)

    patch.setattr(SlidingLog, "reserve", reserve)


def permits_never_expire(patch: Patch) -> None:
    patch.setattr(Permit, "check", lambda *_: None)


def clocks_are_trusted(patch: Patch) -> None:
    patch.setattr(Steadiness, "wait_s", lambda *_: 0.0)


def a_new_key_on_each_try(patch: Patch) -> None:
    whole = Adapter._call

    async def call(self: Adapter, method: str, task: Any, key: str, before_write: Any) -> Any:
        return await whole(self, method, task, f"{key}-{task.attempt}", before_write)

    patch.setattr(Adapter, "_call", call)


def the_intent_is_not_kept(patch: Patch) -> None:
    whole = TableLedger.write

    async def write(self: TableLedger, partition: int, payment_id: str, entry: Any, *, before: Any) -> None:
        del before
        if entry.state is not State.PROCESSING:
            await whole(self, partition, payment_id, entry, before=self.read(partition, payment_id))

    patch.setattr(TableLedger, "write", write)


def the_intent_is_told_after_the_call(patch: Patch) -> None:
    whole = Outbox.all_of

    async def all_of(self: Outbox, task: Any, entry: Any) -> None:
        if entry.event is not EventType.CALL_INTENDED:
            if entry.event is EventType.CALL_FINISHED:
                intent = replace(entry, state=State.PROCESSING, version=entry.version - 1, outcome=None, reason=None,
                                 event=EventType.CALL_INTENDED, retry_tier=None)  # fmt: skip
                await self.event(task, intent)
            await whole(self, task, entry)

    patch.setattr(Outbox, "all_of", all_of)


def the_last_entry_wins(patch: Patch) -> None:
    patch.setattr(payment, "winner", lambda _old, new: new)


def the_ledger_is_not_compared(patch: Patch) -> None:
    async def write(self: TableLedger, partition: int, payment_id: str, entry: Any, *, before: Any) -> None:
        del before
        await self._store.append(partition, [(payment_id.encode(), payment.encode(entry))])
        self._store.parts.put(partition, payment_id.encode(), payment.encode(entry))

    patch.setattr(TableLedger, "write", write)


def nobody_asks_whether_the_partition_is_still_ours(patch: Patch) -> None:
    @asynccontextmanager
    async def writing(_: worker.Worker) -> Any:
        yield

    patch.setattr(worker.Worker, "writing", writing)
    patch.setattr(Lease, "holds", lambda _: True)
    patch.setattr(Permit, "check", lambda *_: None)


def a_key_is_remembered_before_its_payment_is_forwarded(patch: Patch) -> None:
    async def handle(self: Intake, records: Any) -> None:
        partition = records[0].partition
        plan = self.router.plan(records, self.memory.parts.of(partition), 0)
        if plan.remember:
            await self.memory.append(partition, plan.remember.items())
            self.memory.parts.of(partition).update(plan.remember)
        await self.publish(plan.messages)

    whole = dedup.decide

    def decide(seen: Any, **more: Any) -> dedup.Verdict:
        found = whole(seen, **more)
        return dedup.Verdict.DUPLICATE if found is dedup.Verdict.REPLAY else found

    patch.setattr(Intake, "handle", handle)
    patch.setattr(dedup, "decide", decide)


def duplicates_are_not_known(patch: Patch) -> None:
    patch.setattr(dedup, "decide", lambda *_, **__: dedup.Verdict.NEW)
    patch.setattr(payment, "decide", lambda *_, **__: payment.Step.CHARGE)


def conflicts_are_not_told(patch: Patch) -> None:
    whole = dedup.decide

    def decide(seen: Any, **more: Any) -> dedup.Verdict:
        found = whole(seen, **more)
        return dedup.Verdict.DUPLICATE if found is dedup.Verdict.CONFLICT else found

    patch.setattr(dedup, "decide", decide)


def acks_come_first(patch: Patch) -> None:
    whole = worker.Worker._agent

    async def agent(self: worker.Worker, topic: str, partition: int, handle: Callable[[Any], Awaitable[None]]) -> None:
        async def early(records: Any) -> None:
            self.acked[topic, partition] = records[-1].offset + 1
            await handle(records)

        await whole(self, topic, partition, early)

    patch.setattr(worker.Worker, "_agent", agent)


def acks_pass_what_is_in_hand(patch: Patch) -> None:
    whole = worker.Worker._one

    async def one(self: worker.Worker, place: Any, records: Any, handle: Any, *_: Any) -> None:
        await whole(self, place, records, handle)

    patch.setattr(worker.Worker, "_one", one)


def nobody_waits_for_acks(patch: Patch) -> None:
    from ops.chaos.sim.kafka import Broker  # noqa: PLC0415 - patched here only

    async def publish(self: Broker, messages: list[Message]) -> None:
        for message in messages:
            self._send(message, lambda: None)

    patch.setattr(Broker, "publish", publish)


def unknown_is_failed(patch: Patch) -> None:
    whole = payment.settle

    def settle(entry: Any, outcome: Any, **more: Any) -> Any:
        found = whole(entry, outcome, **more)
        return replace(found, state=State.FAILED, retry_tier=None) if found.state is State.UNKNOWN else found

    patch.setattr(payment, "settle", settle)


def unknown_is_charged_again(patch: Patch) -> None:
    patch.setattr(payment, "_next_call", lambda *_, **__: payment.Step.CHARGE)


def a_cancel_always_wins(patch: Patch) -> None:
    def cancel(entry: Any, origin: str, now_ms: int) -> Any:
        return replace(payment._end(entry, State.CANCELLED, "cancelled-by-merchant", now_ms), cancel_origin=origin)

    patch.setattr(payment, "cancel", cancel)


def retries_are_forgotten(patch: Patch) -> None:
    patch.setattr(payment, "retry_of", lambda *_: None)


def reviews_are_not_told(patch: Patch) -> None:
    async def letter(*_: Any, **__: Any) -> None:
        """Nothing."""

    patch.setattr(Outbox, "letter", letter)


def finals_publish_no_result(patch: Patch) -> None:
    patch.setattr(payment, "result_of", lambda *_: None)


def an_interrupted_call_is_made_again(patch: Patch) -> None:
    whole = payment.decide

    def decide(*arguments: Any) -> payment.Step:
        found = whole(*arguments)
        return payment.Step.CHARGE if found is payment.Step.INTERRUPTED else found

    patch.setattr(payment, "decide", decide)


def two_coroutines_work_on_a_payment(patch: Patch) -> None:
    @asynccontextmanager
    async def of(*_: Any) -> Any:
        yield

    patch.setattr(Locks, "of", of)
    the_ledger_is_not_compared(patch)


DEFECTS = [
    a_token_bucket, a_missing_key_is_a_fresh_start, permits_never_expire, clocks_are_trusted, a_new_key_on_each_try,
    the_intent_is_not_kept, the_intent_is_told_after_the_call, the_last_entry_wins, the_ledger_is_not_compared,
    nobody_asks_whether_the_partition_is_still_ours, a_key_is_remembered_before_its_payment_is_forwarded,
    duplicates_are_not_known, conflicts_are_not_told, acks_come_first, nobody_waits_for_acks, unknown_is_failed,
    unknown_is_charged_again, a_cancel_always_wins, retries_are_forgotten, reviews_are_not_told,
    finals_publish_no_result, an_interrupted_call_is_made_again, two_coroutines_work_on_a_payment,
    acks_pass_what_is_in_hand,
]  # fmt: skip


FROM: dict[Callable[[Patch], None], int] = {the_last_entry_wins: 1650}
"""Where to begin with what hardly one life in a thousand shows."""


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_of_the_product_is_seen(defect: Callable[[Patch], None], monkeypatch: Patch) -> None:
    defect(monkeypatch)
    seeds = range(FROM.get(defect, 0), FROM.get(defect, 0) + MOST)
    assert any(world.live(seed).violations for seed in seeds), "no life of so many has shown it"
