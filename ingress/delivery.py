"""Delivery: an accepted command goes to Kafka; where Kafka gives no ack in time, durably to the outbox.

A command that timed out may be stored by Kafka all the same, and comes once more out of the outbox: it has the same
payment id and fingerprint, so intake drops the second one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from ingress.outbox import Full
from ingress.presence import Away
from ops.failpoints import Failpoint
from ops.kafka.clients import Message, PublishError, RecordRefused

AFTER_PUBLISH: Final = Failpoint("ingress.after-publish")
BEFORE_OUTBOX: Final = Failpoint("ingress.before-outbox")
AFTER_OUTBOX: Final = Failpoint("ingress.after-outbox")
AFTER_BEHIND: Final = Failpoint("ingress.after-behind")

Publish = Callable[[Message, float], Awaitable[None]]
"""Commands.publish: returns when the message is acked; the float is how long it may take, in seconds."""


class Waiting(Protocol):
    """The outbox, as a delivery needs it."""

    async def append(self, message: Message, *, behind: bool = False) -> bool:
        """Put a command in; False: ``behind`` was asked and no older one waits. Raises Away, Full."""

    async def find(self, payment_id: str) -> bytes | None:
        """The value of the payment's first command that waits. Raises Away."""


class NotDelivered(PublishError):
    """Neither Kafka nor the outbox is known to have it; either may have it all the same."""


class Delivery:
    """Returns once a command is durable somewhere."""

    def __init__(self, publish: Publish, outbox: Waiting) -> None:
        self._publish = publish
        self._outbox = outbox

    async def create(self, message: Message, timeout_s: float) -> None:
        """Deliver a payment's first command. Raises NotDelivered, RecordRefused.

        It takes ``timeout_s``, and the outbox's time where Kafka takes longer.
        """
        try:
            await self._publish(message, timeout_s)
        except RecordRefused:
            raise
        except PublishError as error:
            await BEFORE_OUTBOX.reach()
            await self._append(message, error)
            await AFTER_OUTBOX.reach()
        else:
            await AFTER_PUBLISH.reach()

    async def follow(self, message: Message, timeout_s: float) -> None:
        """Deliver a command that follows another of its payment: behind it, where that one waits in the outbox.

        With PostgreSQL away nobody knows, and it is not taken. Raises NotDelivered, RecordRefused.
        """
        try:
            if await self._outbox.append(message, behind=True):
                await AFTER_BEHIND.reach()
                return
        except (Away, Full) as error:
            raise NotDelivered(type(error).__name__) from error
        await self.create(message, timeout_s)

    async def waiting(self, payment_id: str) -> bytes | None:
        """The value of the payment's first command in the outbox, as far as that can be asked."""
        try:
            return await self._outbox.find(payment_id)
        except Away:
            return None

    async def _append(self, message: Message, error: PublishError) -> None:
        try:
            await self._outbox.append(message)
        except (Away, Full) as second:
            raise NotDelivered(f"{type(error).__name__}, {type(second).__name__}") from error
