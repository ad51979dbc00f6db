"""Tables: what recovery makes of a changelog, what it writes back, what is dropped when partitions move."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from ops.kafka.clients import PublishTimedOut
from ops.kafka.message import Message
from ops.kafka.tables import Parts, PartsStore

TOPIC = "app-ledger-changelog"


@dataclass
class Broker:
    """A publisher in memory."""

    published: list[Message] = field(default_factory=list)
    away: bool = False

    async def publish(self, messages: list[Message]) -> None:
        if self.away:
            raise PublishTimedOut("no ack")
        self.published += messages


class App:
    """What a store knows of its app."""

    failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.failure = error


def largest(old: bytes | None, new: bytes) -> bytes:
    return max(old or b"", new)


@pytest.fixture
def broker() -> Broker:
    return Broker()


def store_of(broker: Broker, winner: Any = largest) -> PartsStore:
    app: Any = App()
    store = PartsStore("memory://", app, SimpleNamespace(name="ledger"))  # type: ignore[arg-type]
    store.topic, store.winner, store.publisher = TOPIC, winner, broker  # type: ignore[assignment]
    return store


def replay(store: PartsStore, *records: tuple[int, bytes | None, bytes | None]) -> None:
    events = [SimpleNamespace(message=SimpleNamespace(partition=p, key=k, value=v)) for p, k, v in records]
    store.apply_changelog_batch(events, None, None)


async def recovered(store: PartsStore, *partitions: int) -> None:
    await store.on_recovery_completed({TP(TOPIC, number) for number in partitions}, set())


async def test_the_value_that_counts_is_kept_and_written_back_where_it_is_not_the_last(broker: Broker) -> None:
    store = store_of(broker)
    replay(store, (0, b"a", b"5"), (0, b"a", b"3"), (0, b"b", b"1"), (0, b"b", b"2"), (1, b"c", b"9"), (1, b"c", b"8"))
    await recovered(store, 0, 1)
    assert (store.parts.get(0, b"a"), store.parts.get(0, b"b"), store.parts.get(1, b"c")) == (b"5", b"2", b"9")
    assert [(m.topic, m.partition, m.key, m.value) for m in broker.published] == [
        (TOPIC, 0, b"a", b"5"),
        (TOPIC, 1, b"c", b"9"),
    ]


async def test_what_was_written_back_once_is_not_written_again(broker: Broker) -> None:
    store = store_of(broker)
    replay(store, (0, b"a", b"5"), (0, b"a", b"3"), (0, b"a", b"5"))
    await recovered(store, 0)
    assert broker.published == []


async def test_without_a_rule_the_last_value_stays(broker: Broker) -> None:
    store = store_of(broker, None)
    replay(store, (0, b"a", b"5"), (0, b"a", b"3"))
    await recovered(store, 0)
    assert store.parts.get(0, b"a") == b"3"
    assert broker.published == []


async def test_a_tombstone_deletes_whatever_was_there(broker: Broker) -> None:
    store = store_of(broker)
    replay(store, (0, b"a", b"5"), (0, b"a", b"3"), (0, b"a", None), (0, b"b", None), (0, None, b"x"))
    await recovered(store, 0)
    assert len(store.parts) == 0
    assert broker.published == []
    replay(store, (0, b"a", b"1"))
    assert store.parts.get(0, b"a") == b"1"


async def test_a_write_back_that_fails_ends_the_process_before_anything_is_handled(broker: Broker) -> None:
    store = store_of(broker)
    broker.away = True
    replay(store, (0, b"a", b"5"), (0, b"a", b"3"))
    await recovered(store, 0)
    assert isinstance(store.app.failure, PublishTimedOut)


async def test_partitions_that_leave_or_come_anew_are_dropped_and_those_that_stay_are_kept(broker: Broker) -> None:
    """What we wrote ourselves is unknown to Faust: it would be stale when the partition comes back."""
    store = store_of(broker)
    for number in range(4):
        store.parts.put(number, b"k", b"ours")
    ours, others = {TP(TOPIC, 1)}, {TP("payments.lane.x", 2), TP("other-changelog", 3)}
    await store.on_rebalance(set(), ours | others, {TP(TOPIC, 0)})
    assert [store.parts.get(number, b"k") for number in range(4)] == [None, None, b"ours", b"ours"]


async def test_nothing_is_written_back_for_a_partition_that_is_not_ours(broker: Broker) -> None:
    store = store_of(broker)
    replay(store, (0, b"a", b"5"), (0, b"a", b"3"))
    await recovered(store, 1)
    assert broker.published == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from([b"a", b"b"]), st.none() | st.integers(0, 9).map(lambda n: b"%d" % n)
        )
    )
)
def test_after_a_write_back_compaction_and_recovery_agree(records: list[tuple[int, bytes, bytes | None]]) -> None:
    """The last value of each key is the one that recovery keeps."""
    broker = Broker()
    store = store_of(broker)
    replay(store, *records)
    asyncio.run(recovered(store, 0, 1, 2))
    compacted: dict[tuple[int, bytes], bytes | None] = {(p, k): v for p, k, v in records}
    compacted |= {(m.partition or 0, m.key or b""): m.value for m in broker.published}
    assert {key: store.parts.get(*key) for key in compacted} == compacted


def test_parts_keep_the_order_of_first_writes() -> None:
    parts = Parts()
    for number in (3, 1, 2):
        parts.put(0, b"%d" % number, b"x")
    parts.put(0, b"3", b"y")
    parts.put(0, b"9", None)
    parts.put(7, b"z", None)
    assert list(parts.of(0)) == [b"3", b"1", b"2"]
    assert (len(parts), parts.partitions()) == (3, [0])
    parts.drop(0)
    parts.drop(5)
    assert (len(parts), parts.get(0, b"1"), parts.get(9, b"x")) == (0, None, None)
