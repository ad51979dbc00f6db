"""The shell of the sink: a refused batch is halved down to the records at fault, and each ends somewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from ops.kafka.clients import Message, PublishTimedOut, RecordRefused
from schemas import codec, topics
from schemas.records import DeadLetter
from sinks.patience import Patience
from sinks.rows import Batch
from sinks.sink import Sink
from tests.unit.sinks.cases import Memory, event, letter, records


class Topic:
    """What was published. ``refuses`` so many calls, as for a record that is too large."""

    def __init__(self, *, refuses: int = 0) -> None:
        self.messages: list[Message] = []
        self.refuses = refuses

    async def __call__(self, messages: list[Message]) -> None:
        if self.refuses > 0:
            self.refuses -= 1
            raise RecordRefused(0, ValueError("too large"))
        self.messages += messages

    def letters(self) -> list[DeadLetter]:
        return [codec.decode(message.value, DeadLetter) for message in self.messages]


def poisoned(offsets: set[int]) -> Memory:
    """A database that refuses every batch with an event of one of these offsets in it."""
    return Memory(lambda batch: any(row[16] in offsets for row in batch.events))


@given(st.sets(st.integers(0, 63)), st.integers(1, 64))
async def test_every_record_is_written_once_or_dead_lettered_once(bad: set[int], count: int) -> None:
    memory, topic = poisoned(bad), Topic()
    await Sink(Patience(memory), topic).handle(records(*(event(n + 1) for n in range(count))))
    bad = {offset for offset in bad if offset < count}
    assert [row[16] for batch in memory.written for row in batch.events] == [n for n in range(count) if n not in bad]
    assert [found.offset for found in topic.letters()] == sorted(bad)
    assert max(batch.next_offset for batch in memory.written) == count


async def test_one_bad_record_of_500_costs_few_transactions() -> None:
    memory = poisoned({123})
    await Sink(Patience(memory), Topic()).handle(records(*(event(n + 1) for n in range(500))))
    assert memory.tries < 25


async def test_what_could_not_be_decoded_is_dead_lettered_without_halving() -> None:
    memory, topic = Memory(), Topic()
    await Sink(Patience(memory), topic).handle(records(event(1), b"junk", event(2), b""))
    assert memory.tries == 1
    assert [(found.offset, found.reason, found.stage) for found in topic.letters()] == [
        (1, "undecodable", "sink"),
        (3, "undecodable", "sink"),
    ]


async def test_a_letter_that_the_broker_refuses_is_cut() -> None:
    topic = Topic(refuses=1)
    await Sink(Patience(Memory()), topic).handle(records(b"x" * 9000))
    assert [(len(found.original), found.original_size) for found in topic.letters()] == [(4096, 9000)]


async def test_a_letter_that_is_not_acked_leaves_the_batch_unacked() -> None:
    async def away(_: list[Message]) -> None:
        raise PublishTimedOut("no ack")

    with pytest.raises(PublishTimedOut):
        await Sink(Patience(Memory()), away).handle(records(b"junk"))


def unstorable() -> float:
    return REGISTRY.get_sample_value("kifiya_sink_unstorable_total") or 0.0


@pytest.mark.parametrize(
    ("stand_in_fits", "kept", "lost"),
    [(True, ["poison", "refused-by-database", "poison"], 0), (False, ["poison", "poison"], 1)],
)
async def test_a_refused_letter_leads_to_no_other_letter_and_stalls_nothing(
    stand_in_fits: bool, kept: list[str], lost: int
) -> None:
    def refuses(batch: Batch) -> bool:
        return any(row[2] == 7 and (row[3] == "poison" or not stand_in_fits) for row in batch.letters)

    memory, topic, before = Memory(refuses), Topic(), unstorable()
    found = records(*(letter(offset=offset) for offset in (6, 7, 8)), topic=topics.DEAD_LETTER)
    await Sink(Patience(memory), topic).handle(found)
    assert [row[3] for batch in memory.written for row in batch.letters] == kept
    assert topic.messages == []
    assert unstorable() - before == lost
    assert max(batch.next_offset for batch in memory.written) == 3
