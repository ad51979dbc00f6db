"""The ledger: durable before local, compare-and-set, and forgetting what ended long ago."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from ops.kafka.tables import Parts
from schemas.records import PaymentTask, State, TaskKind
from streams import payment
from streams.errors import Overtaken
from streams.payment import Call, Entry
from streams.stores import ledger
from streams.stores.ledger import TableLedger

TASK = PaymentTask(
    kind=TaskKind.CREATE,
    payment_id="107c45ba-7681-56a0-b5fb-19153d5aa05e",
    merchant_id="shop",
    idempotency_key="order-1",
    fingerprint="f1",
    amount_minor=1250,
    currency="USD",
    payment_method="pm_approve",
    lane="simulator",
    accepted_at_ms=1000,
)
ID, KEY, HOME = TASK.payment_id, TASK.payment_id.encode(), 3
INTENDED = payment.intend(payment.fresh(TASK), TASK, Call.CHARGE, 1000)
COMPLETED = replace(INTENDED, version=3, state=State.COMPLETED)
CANCELLED = replace(payment.cancel(payment.fresh(TASK), "c/0/0", 1000), version=2)


@dataclass
class Table:
    """A table in memory. ``on_append`` happens while the broker has not acked, ``on_gate`` while the gate is shut."""

    parts: Parts = field(default_factory=Parts)
    changelog: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    on_append: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    on_gate: list[tuple[bytes, bytes | None]] = field(default_factory=list)

    async def append(self, partition: int, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, value in entries:
            self.changelog.append((partition, key, value))
        for key, value in self.on_append:
            self.parts.put(HOME, key, value)
        self.on_append = []

    @asynccontextmanager
    async def gate(self) -> AsyncIterator[None]:
        for key, value in self.on_gate:
            self.parts.put(HOME, key, value)
        self.on_gate = []
        yield

    def set(self, entry: Entry, key: bytes = KEY) -> None:
        self.parts.put(HOME, key, payment.encode(entry))


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def book(table: Table) -> TableLedger:
    return TableLedger(table, table.gate)


async def test_what_was_written_is_read_on_its_partition_only(table: Table, book: TableLedger) -> None:
    assert book.read(HOME, ID) is None
    await book.write(HOME, ID, INTENDED, before=None)
    assert book.read(HOME, ID) == INTENDED
    assert book.read(HOME + 1, ID) is None
    assert table.changelog == [(HOME, KEY, payment.encode(INTENDED))]


async def test_what_is_not_durable_is_not_read(
    table: Table, book: TableLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker does not ack: nobody may act on what a crash would undo."""

    async def away(*_: object) -> None:
        assert book.read(HOME, ID) == INTENDED
        raise TimeoutError

    table.set(INTENDED)
    monkeypatch.setattr(table, "append", away)
    with pytest.raises(TimeoutError):
        await book.write(HOME, ID, COMPLETED, before=INTENDED)
    assert book.read(HOME, ID) == INTENDED


@pytest.mark.parametrize(
    ("there", "before"), [(COMPLETED, INTENDED), (CANCELLED, None), (None, INTENDED), (INTENDED, COMPLETED)]
)
async def test_nothing_is_written_where_the_ledger_says_something_else(
    table: Table, book: TableLedger, there: Entry | None, before: Entry | None
) -> None:
    if there is not None:
        table.set(there)
    with pytest.raises(Overtaken):
        await book.write(HOME, ID, replace(INTENDED, version=9), before=before)
    assert (table.changelog, book.read(HOME, ID)) == ([], there)


async def test_what_a_recovery_brings_while_the_gate_is_shut_wins(table: Table, book: TableLedger) -> None:
    """The cancel of another worker was read by the recovery that this write has waited for."""
    table.on_gate = [(KEY, payment.encode(CANCELLED))]
    with pytest.raises(Overtaken):
        await book.write(HOME, ID, INTENDED, before=None)
    assert (table.changelog, book.read(HOME, ID)) == ([], CANCELLED)


async def test_a_worker_that_was_stopped_in_the_midst_of_a_write_learns_that_it_was_overtaken(
    table: Table, book: TableLedger
) -> None:
    table.set(INTENDED)
    interrupted = replace(INTENDED, version=3, state=State.UNKNOWN)
    table.on_append = [(KEY, payment.encode(interrupted))]
    with pytest.raises(Overtaken):
        await book.write(HOME, ID, COMPLETED, before=INTENDED)
    assert book.read(HOME, ID) == interrupted


async def test_a_recovery_that_has_read_the_write_itself_does_not_disturb_it(table: Table, book: TableLedger) -> None:
    table.set(INTENDED)
    table.on_append = [(KEY, payment.encode(COMPLETED))]
    await book.write(HOME, ID, COMPLETED, before=INTENDED)
    assert book.read(HOME, ID) == COMPLETED


def nobody(_: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("entry", "forgotten"),
    [
        (replace(COMPLETED, at_ms=999), True),
        (replace(CANCELLED, at_ms=0), True),
        (replace(COMPLETED, at_ms=1000), False),
        (replace(INTENDED, at_ms=0), False),
        (replace(INTENDED, at_ms=0, state=State.REVIEW), False),
        (replace(INTENDED, at_ms=0, state=State.UNKNOWN), False),
        (replace(INTENDED, at_ms=0, state=State.PENDING), False),
    ],
)
async def test_only_what_ended_before_the_window_is_forgotten(
    table: Table, book: TableLedger, entry: Entry, forgotten: bool
) -> None:
    table.set(entry)
    assert await book.forget(1000, nobody) == forgotten
    assert (book.read(HOME, ID) is None) is forgotten
    assert table.changelog == ([(HOME, KEY, None)] if forgotten else [])


async def test_a_payment_in_hand_waits_for_the_next_sweep(table: Table, book: TableLedger) -> None:
    table.set(replace(COMPLETED, at_ms=0))
    assert await book.forget(1000, lambda payment_id: payment_id == ID) == 0
    assert book.read(HOME, ID) is not None


async def test_what_changed_while_its_tombstone_was_written_is_kept(table: Table, book: TableLedger) -> None:
    old = replace(COMPLETED, at_ms=0)
    table.set(old)
    refused = payment.cancel(old, "c/0/1", 2000)
    table.on_append = [(KEY, payment.encode(refused))]
    await book.forget(1000, nobody)
    assert book.read(HOME, ID) == refused


async def test_a_large_ledger_is_swept_whole(table: Table, book: TableLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PAUSE_S", 0.0)
    for number in range(3000):
        entry = COMPLETED if number % 3 else INTENDED
        table.set(replace(entry, at_ms=number), str(number).encode())
    assert await book.forget(2000, nobody) == sum(1 for number in range(2000) if number % 3)
    assert len(table.parts) == 3000 - sum(1 for number in range(2000) if number % 3)
