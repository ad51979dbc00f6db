"""The lanes' queues as the answers tell them: place and time of each payment, and whether a lane takes more.

One task looks at all lanes every second; an answer is arithmetic over what it saw.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from ingress.lookout import Lookout
from ingress.turns import Turns
from ingress.views import iso
from ingress.waiting import RETRY, Standing, Waiting
from ops.kafka.clients import partition_for
from ops.telemetry import logger
from schemas import levels, topics
from schemas.lanes import Lane
from schemas.records import PaymentCommand

LOOK_S: Final = 1.0
LEVEL_OF: Final = tuple(level for level, count in enumerate(topics.LEVELS) for _ in range(count))
"""The level of each line, in the order of ``topics.queue_topics``."""
WAITING: Final = frozenset({"PENDING", "UNKNOWN"})
"""States of a payment that waits for a call: its first one, a retry, or one that asks what became of the last."""
_SAY_EVERY_S: Final = 20.0
_LONGEST_RETRY_S: Final = 86_400


def nominal(lane: Lane) -> float:
    """Calls a second that the limiter gives a lane at most."""
    return lane.limit * 1000 / (lane.window_ms + lane.guard_ms)


class Queues:
    """All lanes, the default one first. Nothing but ``run`` and ``close`` waits for anything."""

    def __init__(self, lanes: Mapping[str, Lane], lookout: Lookout | None = None) -> None:
        self.lanes = dict(lanes)
        self.waiting = {name: Waiting(nominal(lane), Turns(LEVEL_OF, levels.WEIGHTS)) for name, lane in lanes.items()}
        self.lookout = lookout
        self._default = next(iter(lanes))
        self._ahead: dict[str, dict[str, float]] = {name: {} for name in lanes}
        """What each merchant has waiting, by lane: as intake told, and what was accepted here since."""

    async def run(self) -> None:
        """Look, until cancelled."""
        assert self.lookout is not None  # noqa: S101 - only one with a lookout is run
        said_at = -math.inf
        try:
            while True:
                try:
                    await self.lookout.open()
                    while True:
                        await self._look(self.lookout)
                        await asyncio.sleep(LOOK_S)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at again
                    if time.monotonic() - said_at > _SAY_EVERY_S:
                        said_at = time.monotonic()
                        logger().warning("lanes cannot be seen", action="lanes-unseen", error=type(error).__name__)
                await self.lookout.close()
                await asyncio.sleep(LOOK_S)
        finally:
            await self.lookout.end()

    async def _look(self, lookout: Lookout) -> None:
        counted: dict[str, list[list[int]]] = {}

        def mark() -> None:
            counted.update({name: queue.counted() for name, queue in self.waiting.items()})

        for name, sample in (await lookout.look(mark)).items():
            self.waiting[name].observe(sample, counted[name])
            self._ahead[name] = lookout.intake.ahead(name)

    def refusal(self, command: PaymentCommand) -> int | None:
        """Seconds after which to ask again, where the lane's wait is over its maximum; None: it takes more."""
        name = command.lane or self._default
        most_s = self.lanes[name].max_wait_s if name in self.lanes else None
        if most_s is None:
            return None
        queue, merchant = self.waiting[name], command.merchant_id or ""
        partition = _home(queue, command.payment_id or "")
        least_s = queue.last(_line(self._level(name, merchant), merchant), partition, time.monotonic()).least_s
        return min(_LONGEST_RETRY_S, max(1, math.ceil(least_s - most_s))) if least_s > most_s else None

    def accepted(self, document: bytes, command: PaymentCommand) -> bytes:
        """The JSON of a payment whose create was accepted this moment, with its place in the queue."""
        name, merchant = command.lane or self._default, command.merchant_id or ""
        queue = self.waiting.get(name)
        if queue is None:
            return with_queue(document, None)
        partition = _home(queue, command.payment_id or "")
        line = _line(self._level(name, merchant), merchant)
        found = queue.last(line, partition, time.monotonic())
        queue.joined(line, partition, time.time_ns() // 1_000_000)
        self._ahead[name][merchant] = self._ahead[name].get(merchant, 0.0) + 1
        return with_queue(document, view(found))

    def _level(self, lane: str, merchant: str) -> int:
        return levels.level(self._ahead[lane].get(merchant, 0.0))

    def dress(self, document: bytes, level: int | None = None) -> bytes:
        """A payment's JSON with its place in the queue; ``level`` is that of its line, where it is known."""
        return with_queue(document, self.of(orjson.loads(document), level))

    def of(self, payment: Mapping[str, Any], level: int | None = None) -> dict[str, Any] | None:
        """The place of a payment as it is told; None where it waits for nothing."""
        queue = self.waiting.get(payment["lane"])
        if payment["status"] not in WAITING or queue is None:
            return None
        partition = _home(queue, payment["payment_id"])
        if payment["attempts"]:
            due_at = payment.get("retry_at")
            if due_at is None:  # an event from before events told it
                return view(Standing(None, None, RETRY))
            return view(queue.retry(partition, _ms(due_at), time.monotonic(), time.time_ns() // 1_000_000))
        accepted_at_ms = _ms(payment["created_at"])
        merchant = payment["merchant_id"]
        now = self._level(payment["lane"], merchant)
        likely = sorted(range(len(topics.LEVELS)), key=lambda one: abs(one - now)) if level not in LEVEL_OF else [level]
        return view(
            queue.of(
                [_line(each, merchant) for each in likely],
                partition,
                accepted_at_ms,
                time.monotonic(),
                time.time_ns() // 1_000_000,
            )
        )


def _line(level: int, merchant: str) -> int:
    """Which of a lane's lines is a merchant's, at this level."""
    return LEVEL_OF.index(level) + topics.queue_number(level, merchant)


def _ms(moment: str) -> int:
    return round(dt.datetime.fromisoformat(moment).timestamp() * 1000)


def _home(queue: Waiting, payment_id: str) -> int:
    return partition_for(payment_id.encode(), queue.partitions) if queue.partitions else 0


def view(found: Standing) -> dict[str, Any]:
    """A place in a queue as it is told."""
    eta = None
    if found.eta_s is not None:
        eta = iso(int((time.time() + found.eta_s) * 1000))
    return {"position": found.position, "eta": eta, "eta_s": found.eta_s, "reason": found.reason}


def with_queue(document: bytes, queue: Mapping[str, Any] | None) -> bytes:
    """The document of a payment, one field longer: it is not read again for that."""
    return b'%s,"queue":%s}' % (document[:-1], orjson.dumps(queue))
