"""What a reader gets is what the topic holds of its merchant, from wherever it stood, each once and in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ingress import cursor
from ingress.recent import Place, Recent

PARTITIONS = 3
MERCHANTS = ("a", "b", "c")


@dataclass(eq=False)
class Reader:
    """One stream: what it has got, and whether it follows."""

    place: Place
    since: list[int]
    got: list[tuple[int, int]] = field(default_factory=list)
    rung: int = 0
    following: bool = False

    def ring(self) -> None:
        self.rung += 1


class Topic(RuleBasedStateMachine):
    """A topic, the recent part of it, and readers who come, go, lag and come back with their cursor."""

    @initialize(earlier=st.lists(st.integers(0, 50), min_size=PARTITIONS, max_size=PARTITIONS))
    def begin(self, earlier: list[int]) -> None:
        self.records: list[list[str]] = [["x"] * count for count in earlier]
        self.recent = Recent(earlier, most=6, most_bytes=40)
        self.readers: list[Reader] = []

    @rule(partition=st.integers(0, PARTITIONS - 1), merchant=st.sampled_from(MERCHANTS), size=st.integers(1, 9))
    def arrives(self, partition: int, merchant: str, size: int) -> None:
        self.records[partition].append(merchant)
        rung = {id(reader): reader.rung for reader in self.readers}
        self.recent.add(partition, len(self.records[partition]) - 1, merchant, b"v" * size)
        for reader in self.readers:
            told = reader.rung - rung[id(reader)]
            assert told == (1 if reader.following and reader.place.merchant_id == merchant else 0)

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def marker(self, partition: int) -> None:
        self.records[partition].append("")
        self.recent.advance(partition, len(self.records[partition]))

    @rule(merchant=st.sampled_from(MERCHANTS), back=st.integers(0, 8), follows=st.booleans())
    def opens(self, merchant: str, back: int, follows: bool) -> None:
        since = [max(0, position - back) for position in self.recent.positions]
        reader = Reader(Place(merchant, list(since)), since)
        self.readers.append(reader)
        if follows:
            self.follow(reader)

    def follow(self, reader: Reader) -> None:
        self.recent.follow(reader.place.merchant_id, reader.ring)
        reader.following = True

    @rule(number=st.integers(0, 20), limit=st.integers(1, 4))
    def takes(self, number: int, limit: int) -> None:
        for reader in self.readers[number : number + 1]:
            before = list(reader.place.offsets)
            items = self.recent.take(reader.place, limit)
            if items is None:
                assert not self.recent.holds(before)
                self.slice(reader, limit)
                continue
            for item in items:
                reader.got.append((item.partition, item.offset))
                assert cursor.decode(item.cursor)[item.partition] == item.offset + 1
            if len(items) < limit:
                assert self.recent.take(reader.place, 99) == []

    def slice(self, reader: Reader, limit: int) -> None:
        """As the catch-up reads: partition by partition up to where the recent events begin."""
        found = 0
        for partition, start in enumerate(self.recent.starts):
            while reader.place.offsets[partition] < start and found < limit:
                offset = reader.place.offsets[partition]
                reader.place.offsets[partition] += 1
                if self.records[partition][offset] == reader.place.merchant_id:
                    reader.got.append((partition, offset))
                    found += 1

    @rule(number=st.integers(0, 20))
    def reconnects(self, number: int) -> None:
        for reader in self.readers[number : number + 1]:
            word = reader.place.cursor
            if reader.following:
                self.recent.unfollow(reader.place.merchant_id, reader.ring)
                reader.following = False
            reader.place = Place(reader.place.merchant_id, list(cursor.decode(word)))
            self.follow(reader)

    @rule()
    def restarts(self) -> None:
        """Another process: it has read nothing yet."""
        self.recent = Recent(self.recent.positions, most=6, most_bytes=40)
        for reader in self.readers:
            reader.following = False

    @invariant()
    def each_once_and_in_order(self) -> None:
        for reader in getattr(self, "readers", []):
            for partition in range(PARTITIONS):
                owed = [
                    offset
                    for offset in range(reader.since[partition], reader.place.offsets[partition])
                    if self.records[partition][offset] == reader.place.merchant_id
                ]
                assert [offset for part, offset in reader.got if part == partition] == owed

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "recent"):
            count, size = self.recent.held
            assert count <= 6
            assert size <= 40


TestTopic = Topic.TestCase
TestTopic.settings = settings(max_examples=40, stateful_step_count=30)


def test_a_follower_among_strangers_never_falls_behind() -> None:
    recent = Recent([0], most=2)
    place = Place("mine", [0])
    recent.follow("mine", lambda: None)
    assert recent.take(place, 10) == []
    for offset in range(100):
        recent.add(0, offset, "theirs", b"v")
    assert recent.take(place, 10) == []
    assert place.offsets == [100]


def test_one_that_missed_its_own_is_behind() -> None:
    recent = Recent([0], most=2)
    place = Place("mine", [0])
    recent.follow("mine", lambda: None)
    assert recent.take(place, 10) == []
    recent.add(0, 0, "mine", b"v")
    for offset in range(1, 5):
        recent.add(0, offset, "theirs", b"v")
    assert recent.take(place, 10) is None
    assert place.offsets == [0]
