"""Accepting a payment: claim its key, look for an older one, publish, remember. Accepted means Kafka has acked.

Kafka decides, the stores only answer repeats sooner: with Redis away PostgreSQL answers them, with both away the command
is published with the same payment id and the stream tells a duplicate from a conflict.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import orjson

from ingress import views
from ingress.idempotency import Away, Claim, Keys, Standing
from ingress.queries import Payments
from ops.kafka.clients import Message, PublishError
from schemas import codec, topics
from schemas import command as commands
from schemas.records import PaymentCommand


class Publish(Protocol):
    """Publisher.publish, as the ingress needs it."""

    async def __call__(self, messages: list[Message], timeout_s: float = 30.0) -> None:
        """Return when every message is acked. Raises PublishError."""


class Answer(StrEnum):
    """How a create was taken."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    CONFLICT = "conflict"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to a create; ``document`` is the payment's JSON where the requester may see it."""

    answer: Answer
    document: bytes = b""
    wait_ms: int = 0


class Acceptance:
    """Creates in, commands out. ``accept`` raises PublishError when Kafka gave no ack in time."""

    def __init__(
        self, keys: Keys, payments: Payments, publish: Publish, *, default_lane: str, publish_timeout_s: float
    ) -> None:
        self._keys = keys
        self._payments = payments
        self._publish = publish
        self._default_lane = default_lane
        self._publish_timeout_s = publish_timeout_s

    async def accept(self, command: PaymentCommand) -> Taken:
        """Take a checked create, once."""
        payment_id = command.payment_id or ""
        fingerprint = commands.fingerprint(command)
        claim = await self._claim(payment_id, fingerprint)
        match claim.standing if claim else None:
            case Standing.CONFLICT:
                return Taken(Answer.CONFLICT)
            case Standing.BUSY:
                return Taken(Answer.BUSY, wait_ms=claim.wait_ms if claim else 0)
            case Standing.PUBLISHED:
                return Taken(Answer.REPEATED, await self._newest(payment_id, claim.document if claim else None))
            case _:
                pass
        older = await self._older(payment_id)
        if older is not None:
            document = orjson.dumps(views.stored(older))
            await self._remember(payment_id, older["fingerprint"], document)
            if older["fingerprint"] != fingerprint:
                return Taken(Answer.CONFLICT)
            return Taken(Answer.REPEATED, document)
        document = orjson.dumps(views.accepted(command, command.lane or self._default_lane))
        try:
            await self._publish(
                [Message(topics.COMMANDS, payment_id.encode(), codec.encode(command))], self._publish_timeout_s
            )
        except PublishError:
            with suppress(Away):
                await self._keys.release(payment_id)
            raise
        await self._remember(payment_id, fingerprint, document)
        return Taken(Answer.ACCEPTED, document)

    async def find(self, payment_id: str) -> dict[str, Any] | None:
        """The payment as far as it is known, or None. Raises Away when a store that may know it cannot be asked."""
        away: Away | None = None
        try:
            row = await self._payments.find(payment_id)
            if row is not None:
                return views.stored(row)
        except Away as error:
            away = error
        document = await self._keys.document(payment_id)
        if document is not None:
            found: dict[str, Any] = orjson.loads(document)
            return found
        if away is not None:
            raise away
        return None

    async def _claim(self, payment_id: str, fingerprint: str) -> Claim | None:
        try:
            return await self._keys.claim(payment_id, fingerprint)
        except Away:
            return None

    async def _older(self, payment_id: str) -> Any | None:
        """What the sink knows: a key older than Redis remembers, or one that Redis lost."""
        try:
            return await self._payments.find(payment_id)
        except Away:
            return None

    async def _newest(self, payment_id: str, document: bytes | None) -> bytes:
        row = await self._older(payment_id)
        return orjson.dumps(views.stored(row)) if row is not None else document or b"{}"

    async def _remember(self, payment_id: str, fingerprint: str, document: bytes) -> None:
        with suppress(Away):
            await self._keys.published(payment_id, fingerprint, document)
