"""What a group has done, told again and again, while Kafka answers and while it does not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from ops.kafka import done
from ops.kafka.clients import KafkaSettings

PARTS = [TopicPartition("a", 0), TopicPartition("a", 1)]


@dataclass
class Broker:
    """Committed offsets and ends, one pair for each look; None: it does not answer."""

    looks: list[tuple[tuple[int, int], tuple[int, int]] | None]
    told: list[tuple[int, bool]] = field(default_factory=list)
    opened: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, **_: Any) -> Broker:
        self.opened += 1
        return self

    async def start(self) -> None:
        """Nothing."""

    async def stop(self) -> None:
        self.opened -= 1

    @property
    def _coordinator(self) -> Broker:
        return self

    async def fetch_committed_offsets(self, parts: list[TopicPartition]) -> dict[TopicPartition, Any]:
        if not self.looks:
            self.over.set()
            await asyncio.sleep(3600)
        look = self.looks.pop(0)
        if look is None:
            raise KafkaConnectionError
        self.ends = look[1]
        return {
            part: SimpleNamespace(offset=offset) for part, offset in zip(parts, look[0], strict=True) if offset != -2
        }

    async def end_offsets(self, parts: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict(zip(parts, self.ends, strict=True))

    def tell(self, count: int, *, idle: bool) -> None:
        self.told.append((count, idle))


async def test_it_tells_what_was_committed_since_the_last_look_and_whether_all_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(done, "EVERY_S", 0)
    monkeypatch.setattr(done, "AGAIN_S", 0)
    broker = Broker([
        ((-2, -1), (0, 0)),  # nobody has committed yet, and nothing is there
        ((-1, 5), (3, 9)),
        ((3, 8), (3, 9)),
        None,
        ((3, 9), (3, 9)),  # what was done meanwhile is not known
        ((1, 9), (3, 9)),  # the topic was made anew
        ((3, 9), (3, 9)),
    ])  # fmt: skip
    monkeypatch.setattr(done, "AIOKafkaConsumer", broker)
    watching = asyncio.create_task(done.watch(KafkaSettings("unused"), "g", PARTS, broker.tell))
    await asyncio.wait_for(broker.over.wait(), 20)
    assert broker.told == [(0, True), (5, False), (6, False), (0, True), (0, False), (2, True)]
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert broker.opened == 0
