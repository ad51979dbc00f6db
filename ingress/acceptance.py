"""Accepting a payment: claim its key, look for an older one, deliver, remember. Accepted means durable.

Kafka has acked it, or the outbox has it. The stream decides, the stores only answer repeats sooner: with Redis away
PostgreSQL answers them, with both away the command is published with the same payment id and the stream tells a
duplicate from a conflict.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

import orjson

from ingress import views
from ingress.idempotency import Claim, Standing
from ingress.presence import Away
from ops import trace
from ops.failpoints import Failpoint
from ops.kafka.clients import Message
from schemas import codec, topics
from schemas import command as commands
from schemas.records import CommandType, PaymentCommand

_LEAST_S: Final = 0.1
"""What a publish gets at least, however long the stores took."""


AFTER_CLAIM: Final = Failpoint("ingress.after-claim")
AFTER_REMEMBER: Final = Failpoint("ingress.after-remember")

T = TypeVar("T")


class Keys(Protocol):
    """What Redis remembers; every method raises Away."""

    async def claim(self, payment_id: str, fingerprint: str) -> Claim:
        """Claim the right to publish this payment, or tell what stands."""

    async def look(self, payment_id: str, fingerprint: str) -> Claim:
        """Like claim, and leaves no trace."""

    async def published(self, payment_id: str, fingerprint: str, document: bytes) -> None:
        """Kafka has it."""

    async def release(self, payment_id: str, lease: int) -> None:
        """The publish of this claim failed."""

    async def document(self, payment_id: str) -> bytes | None:
        """The payment as it was accepted, where it was published."""


class Payments(Protocol):
    """What the sink has written; raises Away."""

    def find(self, payment_id: str, merchant_id: str) -> Awaitable[Mapping[str, Any] | None]:
        """The row of this payment of this merchant, or None; better asked for before it is awaited."""


class Deliver(Protocol):
    """Delivery, as the acceptance needs it."""

    async def create(self, message: Message, timeout_s: float) -> None:
        """Return when the payment's first command is durable. Raises PublishError."""

    async def follow(self, message: Message, timeout_s: float) -> None:
        """Return when a later command is durable, in its order. Raises PublishError."""

    async def waiting(self, payment_id: str) -> bytes | None:
        """The value of the payment's first command that waits for Kafka."""


class Queue(Protocol):
    """What is known of the lanes' queues; arithmetic only."""

    def refusal(self, command: PaymentCommand) -> int | None:
        """Seconds after which to ask again, where the lane's wait is over its maximum; None: it takes more."""

    def accepted(self, document: bytes, command: PaymentCommand) -> bytes:
        """The JSON of a payment whose create was accepted this moment, with its place in the queue."""

    def dress(self, document: bytes, level: int | None = None) -> bytes:
        """A payment's JSON with its place in the queue; ``level`` is that of its line, where it is known."""

    def of(self, payment: Mapping[str, Any], level: int | None = None) -> dict[str, Any] | None:
        """The place of a payment as it is told; None where it waits for nothing."""


class Answer(StrEnum):
    """How a create was taken."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    CONFLICT = "conflict"
    BUSY = "busy"
    EXPIRED = "expired"
    TOO_LONG = "too-long"


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to a create; ``document`` is the payment's JSON where the requester may see it."""

    answer: Answer
    document: bytes = b""
    wait_ms: int = 0


def decide(
    standing: Standing | None, older: str | None, fingerprint: str, *, expired: bool, too_long: bool = False
) -> Answer:
    """How to take a create, ACCEPTED standing for: publish it.

    ``standing`` is None where Redis is away, ``older`` the fingerprint of PostgreSQL's row. The row is what the stream
    decided, so it goes before Redis. A repeat of a payment that has expired since is still a repeat; so is one
    that the lane would not take any more.
    """
    if older is not None:
        return Answer.REPEATED if older == fingerprint else Answer.CONFLICT
    match standing:
        case Standing.CONFLICT:
            return Answer.CONFLICT
        case Standing.BUSY:
            return Answer.BUSY
        case Standing.PUBLISHED:
            return Answer.REPEATED
        case Standing.NEW | None:
            if expired:
                return Answer.EXPIRED
            return Answer.TOO_LONG if too_long else Answer.ACCEPTED


@dataclass(frozen=True, slots=True)
class Older:
    """What is stored of a payment: the fingerprint of its create, its JSON, and the level that it waits in."""

    fingerprint: str
    document: bytes
    level: int | None = None


class Acceptance:
    """Creates in, commands out. A create takes at most ``publish_timeout_s``, and one wait for the outbox and Redis.

    ``may_wait`` says whether commands may wait in the outbox: where none do, nobody asks it.
    """

    def __init__(  # noqa: PLR0913 - what it stands on
        self,
        keys: Keys,
        payments: Payments,
        deliver: Deliver,
        queue: Queue,
        *,
        default_lane: str,
        publish_timeout_s: float,
        may_wait: Callable[[], bool] = lambda: True,
    ) -> None:
        self._keys = keys
        self._payments = payments
        self._deliver = deliver
        self._queue = queue
        self._may_wait = may_wait
        self._default_lane = default_lane
        self._publish_timeout_s = publish_timeout_s

    async def accept(self, command: PaymentCommand, began: float | None = None) -> Taken:
        """Take a checked create, once. Raises PublishError when Kafka gave no ack in time.

        ``began`` is when the request came (monotonic, seconds): what it has waited since is not waited again.
        """
        began = time.monotonic() if began is None else began
        payment_id = command.payment_id or ""
        fingerprint = commands.fingerprint(command)
        expired = command.expires_at_ms is not None and command.expires_at_ms <= (command.accepted_at_ms or 0)
        refusal_s = self._queue.refusal(command)
        ask = self._keys.look if expired or refusal_s else self._keys.claim
        claim, older = await self._look_up(ask(payment_id, fingerprint), command)
        if older is not None:
            fingerprint = commands.fingerprint(command, stored=older.fingerprint)
        answer = decide(
            claim.standing if claim else None,
            older.fingerprint if older else None,
            fingerprint,
            expired=expired,
            too_long=refusal_s is not None,
        )
        document = older.document if older else (claim.document if claim else None) or b""
        match answer:
            case Answer.ACCEPTED:
                lease = claim.lease if claim else None
                return await self._take(command, fingerprint, lease, began)
            case Answer.REPEATED | Answer.CONFLICT if older and claim and claim.standing is Standing.NEW:
                await self._remember(payment_id, older.fingerprint, document)
            case _:
                pass
        if answer is Answer.REPEATED:
            return Taken(answer, self._queue.dress(document, older.level if older else None))
        if answer is Answer.TOO_LONG:
            return Taken(answer, wait_ms=1000 * (refusal_s or 1))
        return Taken(answer, wait_ms=claim.wait_ms if claim else 0)

    async def publish(self, command: PaymentCommand, began: float) -> None:
        """Deliver a checked command, a create or a cancel: the only way to Kafka. Raises PublishError.

        ``began`` is when the request came (monotonic, seconds).
        """
        message = Message(topics.COMMANDS, (command.payment_id or "").encode(), codec.encode(command))
        message = trace.marked(message, trace.CURRENT.get())
        deliver = self._deliver.create if command.type is CommandType.CREATE else self._deliver.follow
        await deliver(message, max(_LEAST_S, began + self._publish_timeout_s - time.monotonic()))

    async def find(self, payment_id: str, merchant_id: str) -> bytes | None:
        """The payment's JSON as far as it is known, or None, also where it is another merchant's.

        Raises Away when a store that may know it is away.
        """
        away: Away | None = None
        try:
            row = await self._payments.find(payment_id, merchant_id)
            if row is not None:
                return self._queue.dress(orjson.dumps(views.stored(row)), row["level"])
        except Away as error:
            away = error
        document: bytes | None = None
        try:
            document = await self._keys.document(payment_id)
        except Away as error:
            away = error
        if document is not None and orjson.loads(document)["merchant_id"] != merchant_id:
            return None
        if document is None and (older := await self._in_outbox(payment_id, merchant_id)):
            document = older.document
        if document is None and away is not None:
            raise away
        return None if document is None else self._queue.dress(document)

    def told(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A payment of a list, out of its row, with its place in the queue."""
        payment = views.stored(row)
        return {**payment, "queue": self._queue.of(payment, row["level"])}

    async def _look_up(
        self, asking: Coroutine[Any, Any, Claim], command: PaymentCommand
    ) -> tuple[Claim | None, Older | None]:
        """What Redis and PostgreSQL know, asked at once; whoever is cancelled meanwhile keeps no claim."""
        payment_id, merchant_id = command.payment_id or "", command.merchant_id or ""
        row = asyncio.ensure_future(self._payments.find(payment_id, merchant_id))
        claim: Claim | None = None
        try:
            claim = await _unless_away(asking)
            return claim, await self._older(command, await _unless_away(row))
        except BaseException:
            if not row.cancel() and not row.cancelled():
                row.exception()  # seen: or asyncio says that nobody has
            if claim is not None and claim.lease:
                await _unless_away(self._keys.release(payment_id, claim.lease))
            raise

    async def _take(self, command: PaymentCommand, fingerprint: str, lease: int | None, began: float) -> Taken:
        payment_id = command.payment_id or ""
        document = orjson.dumps(views.accepted(command, command.lane or self._default_lane))
        try:
            await AFTER_CLAIM.reach()
            await self.publish(command, began)
        except BaseException:
            if lease is not None:
                with suppress(Away):
                    await self._keys.release(payment_id, lease)
            raise
        await self._remember(payment_id, fingerprint, document)
        await AFTER_REMEMBER.reach()
        return Taken(Answer.ACCEPTED, self._queue.accepted(document, command))

    async def _older(self, command: PaymentCommand, row: Mapping[str, Any] | None) -> Older | None:
        """What PostgreSQL knows: a key older than Redis remembers, or one that Redis lost."""
        if row is not None:
            return Older(row["fingerprint"], orjson.dumps(views.stored(row)), row["level"])
        return await self._in_outbox(command.payment_id or "", command.merchant_id or "")

    async def _in_outbox(self, payment_id: str, merchant_id: str) -> Older | None:
        """The create of this merchant that waits for Kafka."""
        value = await self._deliver.waiting(payment_id) if self._may_wait() else None
        command = codec.decode(value, PaymentCommand) if value else None
        if command is None or command.type is not CommandType.CREATE or command.merchant_id != merchant_id:
            return None
        document = orjson.dumps(views.accepted(command, command.lane or self._default_lane))
        return Older(commands.fingerprint(command), document)

    async def _remember(self, payment_id: str, fingerprint: str, document: bytes) -> None:
        await _unless_away(self._keys.published(payment_id, fingerprint, document))


async def _unless_away(asking: Awaitable[T]) -> T | None:
    try:
        return await asking
    except Away:
        return None
