"""Events, letters and records for tests of the sink, and a database in memory that refuses what it is told to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from schemas import codec, topics
from schemas.records import DeadLetter, EventType, PaymentEvent, State
from sinks.postgres import Away, Refused
from sinks.rows import Batch, Record

ID = "6f1d7e0c-51f4-5c0e-9d0a-6b6966697961"
NOW_MS = 1_767_225_600_000


def event(version: int = 1, **changes: Any) -> PaymentEvent:
    fields: dict[str, Any] = {
        "type": EventType.STATE_CHANGED,
        "version": version,
        "state": State.PENDING,
        "payment_id": ID,
        "merchant_id": "acme",
        "idempotency_key": "k",
        "fingerprint": "ab" * 32,
        "amount_minor": 1250,
        "currency": "USD",
        "payment_method": "pm_approve",
        "lane": "simulator",
        "accepted_at_ms": NOW_MS,
        "at_ms": NOW_MS,
        **changes,
    }
    return PaymentEvent(**fields)


def letter(**changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "reason": "poison",
        "detail": "what was wrong",
        "stage": "intake",
        "topic": topics.COMMANDS,
        "partition": 3,
        "offset": 9,
        "original": b"junk",
        "original_size": 4,
        "original_sha256": hashlib.sha256(b"junk").hexdigest(),
        "at_ms": NOW_MS,
        **changes,
    }
    return DeadLetter(**fields)


def records(*values: bytes | PaymentEvent | DeadLetter, topic: str = topics.EVENTS, first: int = 0) -> list[Record]:
    encoded = [value if isinstance(value, bytes) else codec.encode(value) for value in values]
    return [Record(topic, 5, first + n, NOW_MS, value) for n, value in enumerate(encoded)]


class Memory:
    """What was written, in order. ``refuses`` says of a batch whether it is refused; ``away`` so many tries fail."""

    def __init__(self, refuses: Callable[[Batch], bool] = lambda _: False, *, away: int = 0) -> None:
        self.written: list[Batch] = []
        self.tries = 0
        self.away = away
        self._refuses = refuses

    async def write(self, batch: Batch) -> dict[str, int]:
        self.tries += 1
        await self.ping()
        if self._refuses(batch):
            raise Refused("UniqueViolationError")
        self.written.append(batch)
        return {"payments": len(batch.payments)}

    async def ping(self) -> None:
        if self.away > 0:
            self.away -= 1
            raise Away("ConnectionRefusedError")
