"""Where a record came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record stands in Kafka, and its bytes, for dead letters."""

    topic: str
    partition: int
    offset: int
    value: bytes

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"
