"""Changelog-backed tables of raw bytes in memory: one dict per partition, recovered by a rule.

A Faust table whose local data are written by us, after the changelog's ack. Faust replays the changelog; three things
are ours: data of a partition that went away are dropped at once (Faust knows only of keys it has set itself), the value
that counts may be another than the last one, and where it is, it is written back before anything is processed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from faust.stores.memory import Store as MemoryStore
from faust.types import TP

from ops.kafka.clients import Message, Publisher
from ops.telemetry import logger
from schemas import topics

if TYPE_CHECKING:
    from ops.kafka.faust_app import App

Winner = Callable[[bytes | None, bytes], bytes]
"""Of the value in hand and the next one of the changelog, what counts."""


class Parts:
    """The local data, by partition; within one in the order of the first writes."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[bytes, bytes]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))

    def partitions(self) -> list[int]:
        """Partitions that hold anything."""
        return [number for number, part in self._parts.items() if part]

    def of(self, partition: int) -> dict[bytes, bytes]:
        """The data of one partition."""
        return self._parts.setdefault(partition, {})

    def get(self, partition: int, key: bytes) -> bytes | None:
        """The value, or None."""
        part = self._parts.get(partition)
        return part.get(key) if part else None

    def put(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Set a value; None deletes."""
        if value is None:
            self.of(partition).pop(key, None)
        else:
            self.of(partition)[key] = value

    def drop(self, partition: int) -> None:
        """Forget a whole partition."""
        self._parts.pop(partition, None)


class PartsStore(MemoryStore):  # type: ignore[type-arg]
    """The store that Faust recovers; ``parts`` is what we read, and write once :meth:`append` has returned."""

    app: App
    parts: Parts
    winner: Winner | None
    topic: str
    publisher: Publisher

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parts = Parts()
        self._lost: dict[int, set[bytes]] = {}

    async def append(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Append keys and values to the changelog, all acked on return. None is a tombstone. Raises PublishError."""
        await self.publisher.publish([Message(self.topic, key, value, partition=partition) for key, value in entries])

    def apply_changelog_batch(self, batch: Iterable[Any], to_key: Any, to_value: Any) -> None:
        """Replay records of the changelog, in order; remember where the value that counts is not the last one."""
        del to_key, to_value
        for event in batch:
            partition, key, value = event.message.partition, event.message.key, event.message.value
            if key is None:
                continue
            kept = value
            if value is not None and self.winner is not None:
                kept = self.winner(self.parts.get(partition, key), value)
            self.parts.put(partition, key, kept)
            lost = self._lost.setdefault(partition, set())
            if kept == value:
                lost.discard(key)
            else:
                lost.add(key)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Drop what is not ours any more, and what is left of an earlier time: those are replayed from the start."""
        del assigned, generation_id
        for tp in revoked | newly_assigned:
            if tp.topic == self.topic:
                self.parts.drop(tp.partition)
                self._lost.pop(tp.partition, None)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Write the values that count back, where they are not the last ones; no record flows before this returns.

        Compaction keeps the last record of a key: a zombie's late entry would outlive the true one.
        """
        del standby_tps
        ours = {tp.partition for tp in active_tps}
        for partition in list(self._lost):
            keys = self._lost.pop(partition)
            if partition not in ours or not keys:
                continue
            part = self.parts.of(partition)
            try:
                await self.append(partition, [(key, part[key]) for key in keys if key in part])
            except Exception as error:  # noqa: BLE001 - Faust would swallow it and go on
                self.app.fail(error)
                return
            logger().warning("entries written back", action="written-back", partition=partition, count=len(keys))


def create_table(
    app: App, name: str, partitions: int, publisher: Publisher, *, winner: Winner | None = None
) -> PartsStore:
    """A table of raw bytes; its changelog is declared by ``schemas.topics``.

    ``winner(old, new)`` picks the value that recovery keeps; without it the last one stays.
    """
    table = app.Table(name, partitions=partitions, key_type=bytes, value_type=bytes)
    store = PartsStore(
        "memory://",
        app,
        table,
        table_name=table.name,
        key_type=bytes,
        key_serializer="raw",
        value_type=bytes,
        value_serializer="raw",
        options=None,
    )
    store.topic = topics.changelog_topic(app.conf.id, name)
    store.winner = winner

    store.publisher = publisher
    table._data = store  # type: ignore[attr-defined]  # noqa: SLF001 - Faust takes stores by URL only
    return store
