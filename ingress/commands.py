"""The way to Kafka: publish a command, fail at once while Kafka is away, find it again without a restart."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final, Self

from ingress.presence import Away, Presence
from ops.kafka.clients import Message, Publisher, PublishError, PublishTimedOut, RecordRefused
from schemas import topics
from schemas.seal import Seals

_TELLING_S: Final = 0.5
"""A shorter wait than this tells nothing of Kafka: the request had stood in line before."""


class Commands:
    """Publishes to ``payments.commands``; an async context manager that does not wait for Kafka to be there.

    With ``seals`` each record is sealed, at this last moment: what had waited in the outbox under an older secret, too.
    """

    def __init__(
        self,
        publisher: Publisher,
        seals: Seals | None = None,
        *,
        patience_s: float = 3.0,
        rest_s: float = 0.25,
        stop_s: float = 1.0,
    ) -> None:
        self._publisher = publisher
        self._seals = seals
        self._stop_s = stop_s
        self._presence = Presence("kafka", self._look, rest_s=rest_s, patience_s=patience_s)
        self._acked_at = 0.0

    async def __aenter__(self) -> Self:
        self._presence.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._presence.close()
        await self._stop()

    @property
    def away(self) -> bool:
        """Whether Kafka is known to be away."""
        return self._presence.away

    async def publish(self, message: Message, timeout_s: float) -> None:
        """Returns when every in-sync replica has it. Raises RecordRefused, PublishTimedOut: it may be stored or not."""
        await self.publish_all([message], timeout_s)

    async def publish_all(self, messages: list[Message], timeout_s: float) -> None:
        """Like ``publish``, of several: in their order where they share a partition."""
        try:
            self._presence.check()
        except Away as error:
            raise PublishTimedOut("Kafka is away") from error
        began = time.monotonic()
        if self._seals is not None:
            messages = sealed(messages, self._seals, time.time_ns() // 1_000_000)
        try:
            await self._publisher.publish(messages, timeout_s)
        except RecordRefused:
            raise
        except PublishError as error:
            # One slow partition is not Kafka, where others were acked meanwhile; nor is a wait that was cut short.
            if self._acked_at < began and (timeout_s >= _TELLING_S or time.monotonic() - began < timeout_s):
                self._presence.lost(error)
            raise
        self._acked_at = time.monotonic()

    async def ping(self) -> None:
        """Whether a command would be taken now. Raises Away, PublishTimedOut, KafkaError."""
        self._presence.check()
        await self._publisher.ping(topics.COMMANDS)

    async def _look(self) -> None:
        if not self._publisher.running:
            await self._stop()
            await self._publisher.start()
        await self._publisher.ping(topics.COMMANDS)

    async def _stop(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stop_s):
                await self._publisher.stop()


def sealed(messages: list[Message], seals: Seals, now_ms: int) -> list[Message]:
    """The same records, each with its seal. Pure."""
    found = []
    for each in messages:  # not _replace: this is the hot path
        headers = (*each.headers, seals.header(each.value or b"", now_ms))
        found.append(Message(each.topic, each.key, each.value, headers, each.partition))
    return found
