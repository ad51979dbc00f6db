"""Intake, dispatch and delay as processes of the simulation: the product's own code over the small world."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, cast

from ops.chaos.sim.kafka import Group, Stored
from ops.chaos.sim.loop import sleep
from ops.chaos.sim.worker import Table, Worker
from ops.kafka.clients import PublishError
from schemas import codec, topics
from schemas.records import PaymentTask
from streams import hold, payment, queues
from streams.dispatch import Dispatcher
from streams.intake import Intake
from streams.origin import Origin
from streams.router import Record, Router
from streams.share import Share
from streams.stores.ledger import TableLedger

BATCH: Final = 5

Handlers = dict[str, Callable[[list[Stored]], Awaitable[None]]]


class IntakeWorker(Worker):
    """Intake."""

    batch = BATCH

    def __init__(
        self, name: str, group: Group, told: Callable[[str], None], router: Router, make_share: Callable[[], Share]
    ) -> None:
        self._router = router
        self._make_share = make_share
        super().__init__(name, group, told)

    async def open(self) -> None:
        """See Worker."""
        broker = self.group.broker
        self.table = Table(broker, topics.changelog_topic(topics.INTAKE_APP, topics.SEEN_TABLE))
        self._intake = Intake(self._router, cast("Any", self.table), broker.publish, self.writing, self._make_share())

    def sources(self) -> Handlers:
        """See Worker."""
        return {topics.COMMANDS: self._handle}

    async def _handle(self, records: list[Stored]) -> None:
        await self._intake.handle(
            [
                Record(each.partition, each.offset, each.timestamp, each.value or b"", tuple(each.headers))
                for each in records
            ]
        )


class DispatchWorker(Worker):
    """Dispatch of one lane."""

    def __init__(
        self,
        name: str,
        group: Group,
        told: Callable[[str], None],
        lane: str,
        make: Callable[[DispatchWorker], Dispatcher],
    ) -> None:
        self._lane = lane
        self._make = make
        super().__init__(name, group, told)

    async def open(self) -> None:
        """See Worker."""
        topic = topics.changelog_topic(topics.dispatch_app(self._lane), topics.LEDGER_TABLE)
        self.table = Table(self.group.broker, topic, payment.winner)
        self._dispatcher = self._make(self)

    def ledger(self) -> TableLedger:
        """The ledger over this process' table."""
        return TableLedger(cast("Any", self.table), self.writing)

    def sources(self) -> Handlers:
        """See Worker."""
        return {
            topics.due_topic(self._lane): functools.partial(self._create, queue=queues.DUE),
            **{
                name: functools.partial(self._create, queue=queue)
                for name, queue in queues.fresh_queues(self._lane).items()
            },
            topics.cancel_topic(self._lane): self._cancel,
        }

    async def _create(self, records: list[Stored], *, queue: queues.Queue) -> None:
        task, origin = _task(records)
        await self._dispatcher.create(task, origin, queue=queue)

    async def _cancel(self, records: list[Stored]) -> None:
        await self._dispatcher.cancel(*_task(records))


def _task(records: list[Stored]) -> tuple[PaymentTask, Origin]:
    (record,) = records
    origin = Origin(record.topic, record.partition, record.offset, record.value or b"")
    return codec.decode(origin.value, PaymentTask), origin


class DelayWorker(Worker):
    """Delay: holds each head until it is due. All tiers are topics of one group."""

    def __init__(self, name: str, group: Group, told: Callable[[str], None], tiers: tuple[str, ...], lane: str) -> None:
        self._tiers = tiers
        self._lanes = frozenset({lane})
        super().__init__(name, group, told)

    async def open(self) -> None:
        """See Worker."""

    def sources(self) -> Handlers:
        """See Worker."""
        return {topics.retry_topic(tier): self._hold for tier in self._tiers}

    async def _hold(self, records: list[Stored]) -> None:
        (record,) = records
        tier_s = topics.tier_ms(record.topic.rpartition(".")[2]) / 1000
        seen = hold.Seen(record.offset, self.clock())
        while True:
            plan = hold.plan(
                records,
                tier_s=tier_s,
                lanes=self._lanes,
                seen=seen,
                now_ms=self.group.broker.now_ms(),
                now=self.clock(),
            )
            if plan.hold is None:
                break
            await sleep(plan.hold.left_s(self.group.broker.now_ms(), self.clock()))
        await self.group.broker.publish([step.message for step in plan.steps])


async def quietly(work: Awaitable[Any]) -> None:
    """Await something that may time out for a client: it knows no more than that."""
    with suppress(PublishError):
        await work
