"""One record on its way to Kafka. Imports no client, so that pure decisions can say what is to be published."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One record to publish. Without ``partition`` the key decides, by murmur2 as in Java's producer."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
