"""The dead letters that stand on their topic: each origin once, and of one payment the letter that counts."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from aiokafka import ConsumerRecord

from ops.kafka.clients import KafkaSettings
from ops.kafka.reading import present
from schemas import codec, topics
from schemas.records import DeadLetter, PaymentTask

TASK_STAGES: Final = frozenset({"dispatch", "delay"})
"""Stages whose records are tasks of payments."""
OF_NO_PAYMENT: Final = frozenset({"fingerprint-conflict", "not-home"})
"""Reasons that say nothing about the healthy payment with the same id."""


@dataclass(frozen=True, slots=True)
class Found:
    """One dead letter, where it stands on its topic, and its headers. ``begun``: calls of the payment before it."""

    letter: DeadLetter
    at: str
    headers: dict[str, bytes]
    begun: int = 0

    @property
    def origin(self) -> str:
        """``topic/partition/offset`` of the record that was given up: what a letter is known by."""
        return f"{self.letter.topic}/{self.letter.partition}/{self.letter.offset}"

    @property
    def whole(self) -> bool:
        """Whether all of the original is in the letter."""
        return len(self.letter.original) == self.letter.original_size

    @property
    def of_payment(self) -> str | None:
        """The payment that waits because of this letter; None where the letter is about a record only."""
        found = self.letter
        return found.payment_id if found.stage in TASK_STAGES and found.reason not in OF_NO_PAYMENT else None


def task_of(letter: DeadLetter) -> PaymentTask:
    """The task in a letter. Raises codec.DecodeError."""
    return codec.decode(letter.original, PaymentTask)


def find(record: ConsumerRecord) -> Found | None:
    """The letter in a record of the dead-letter topic; None for what is none."""
    try:
        letter = codec.decode(record.value, DeadLetter)
    except codec.DecodeError:
        return None
    begun = letter.attempts
    if not begun and letter.stage in TASK_STAGES:
        try:
            begun = max(0, task_of(letter).attempt - 1)
        except codec.DecodeError:
            begun = 0
    return Found(letter, f"{record.partition}/{record.offset}", dict(record.headers), begun)


def unique(found: Iterable[Found]) -> list[Found]:
    """One letter of each origin, the last one, in order of time: a crash between letter and commit writes it again."""
    return sorted({item.origin: item for item in found}.values(), key=lambda item: item.letter.at_ms)


def standing(found: Iterable[Found]) -> dict[str, Found]:
    """Payment to the letter that counts: the one after its last call; earlier ones were replayed, or written twice."""
    newest: dict[str, Found] = {}
    for item in found:
        payment_id = item.of_payment
        if payment_id is None:
            continue
        other = newest.get(payment_id)
        if other is None or (item.begun, item.letter.at_ms) >= (other.begun, other.letter.at_ms):
            newest[payment_id] = item
    return newest


def current(found: Iterable[Found]) -> list[Found]:
    """The letters without those that a newer one of the same payment has overtaken."""
    items = list(found)
    newest = standing(items)
    return [item for item in items if item.of_payment is None or newest[item.of_payment].origin == item.origin]


async def read(kafka: KafkaSettings, *, originals: bool = True) -> list[Found]:
    """All letters, each origin once, in order of time. ``originals=False`` leaves the original bytes out.

    Raises UnknownTopic, KafkaError, TimeoutError.
    """
    found: dict[str, Found] = {}
    async with aclosing(present(kafka, topics.DEAD_LETTER)) as records:
        async for record in records:
            item = find(record)
            if item is not None:
                found[item.origin] = item if originals else replace(item, letter=replace(item.letter, original=b""))
    return unique(found.values())
