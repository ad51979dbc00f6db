"""What becomes of one record of a lane's topics: handled, or a dead letter; only a failed publication ends the role."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from ops import trace
from ops.kafka.clients import PublishTimedOut, RecordRefused, partition_for
from ops.kafka.message import Message
from schemas import codec, topics
from schemas.records import DeadLetter, PaymentTask, TaskKind
from streams import lane
from streams.origin import Origin

PARTITIONS = 8
TASK = PaymentTask(
    kind=TaskKind.CREATE,
    payment_id="107c45ba-7681-56a0-b5fb-19153d5aa05e",
    merchant_id="shop",
    idempotency_key="order-1",
    fingerprint="f1",
    amount_minor=1250,
    currency="USD",
    payment_method="pm_approve",
    lane="simulator",
    accepted_at_ms=1_800_000_000_000,
)
CONTEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KEY = TASK.payment_id.encode()
HOME = partition_for(KEY, PARTITIONS)


@dataclass
class World:
    """A publisher and a handler in memory."""

    error: BaseException | None = None
    away: bool = False
    published: list[Message] = field(default_factory=list)
    handled: list[tuple[PaymentTask, Origin]] = field(default_factory=list)

    async def publish(self, messages: list[Message]) -> None:
        if self.away:
            raise PublishTimedOut("no ack")
        self.published += messages

    async def handle(self, task: PaymentTask, origin: Origin) -> None:
        if self.error is not None:
            raise self.error
        self.handled.append((task, origin))

    async def take(self, **changes: Any) -> None:
        message = {
            "topic": "payments.lane.simulator",
            "partition": HOME,
            "offset": 7,
            "key": KEY,
            "value": good(),
            "headers": [],
        }
        publisher: Any = self
        await lane._one(
            SimpleNamespace(**message | changes),
            lane="simulator",
            partitions=PARTITIONS,
            publisher=publisher,
            handle=self.handle,
        )

    def letter(self) -> DeadLetter:
        (message,) = self.published
        assert message.topic == topics.DEAD_LETTER
        assert message.value is not None
        return codec.decode(message.value, DeadLetter)


def good(**changes: Any) -> bytes:
    return codec.encode(replace(TASK, **changes))


async def test_a_good_record_is_handled_with_its_origin() -> None:
    world = World()
    await world.take()
    assert world.handled == [(TASK, Origin("payments.lane.simulator", HOME, 7, good()))]
    assert str(world.handled[0][1]) == f"payments.lane.simulator/{HOME}/7"
    assert world.published == []


async def test_a_record_s_trace_is_the_current_one_until_the_next_record() -> None:
    world = World()
    seen: list[str | None] = []

    async def handle(task: PaymentTask, origin: Origin) -> None:
        seen.append(trace.CURRENT.get())
        await World.handle(world, task, origin)

    world.handle = handle  # type: ignore[method-assign]
    await world.take(headers=[("traceparent", CONTEXT.encode())])
    await world.take()
    await world.take(headers={"traceparent": CONTEXT.encode()})
    assert seen == [CONTEXT, None, CONTEXT]
    await world.take(value=b"junk", headers=[("traceparent", CONTEXT.encode())])
    assert world.published[0].headers[-1] == ("traceparent", CONTEXT.encode())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": b"junk"}, "undecodable"),
        ({"value": None}, "undecodable"),
        ({"key": None}, "not-home"),
        ({"key": b"other"}, "not-home"),
        ({"partition": (HOME + 1) % PARTITIONS}, "not-home"),
        ({"value": good(lane="second")}, "not-home"),
    ],
)
async def test_a_record_that_is_not_at_home_or_no_task_is_a_dead_letter(changes: dict[str, Any], reason: str) -> None:
    """Away from home the ledger is another worker's: the payment would look new."""
    world = World()
    await world.take(**changes)
    found = world.letter()
    assert (found.reason, found.stage, found.topic, found.offset) == (reason, "dispatch", "payments.lane.simulator", 7)
    assert found.partition == changes.get("partition", HOME)
    assert world.handled == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RecordRefused(0, ValueError("4111 1111 1111 1111")), "refused-by-broker"),
        (KeyError("4111111111111111"), "internal-error"),
        (ValueError("x"), "internal-error"),
    ],
)
async def test_a_defect_stalls_nothing_and_leaks_nothing(error: BaseException, reason: str) -> None:
    world = World(error)
    await world.take()
    found = world.letter()
    assert (found.reason, found.payment_id, found.original) == (reason, TASK.payment_id, good())
    assert "4111" not in found.detail


async def test_a_publication_that_fails_is_let_out_so_that_the_offset_stays() -> None:
    with pytest.raises(PublishTimedOut):
        await World(PublishTimedOut("no ack")).take()
    with pytest.raises(PublishTimedOut):
        await World(away=True).take(value=b"junk")
