"""PostgreSQL's side of the parity: reads the projection in pages, and waits until the sink has written so far."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

import asyncpg

from ops.kafka.clients import KafkaSettings
from ops.kafka.reading import present
from ops.verify import parity
from ops.verify.parity import Fold, Report
from schemas import codec, topics
from schemas.records import PaymentResult
from sinks import rows
from sinks.rows import Record

PAGE: Final = 2000
CATCH_UP_S: Final = 60.0
STATEMENT_S: Final = 60.0
SHOWN: Final = 20

_COLUMNS: Final = ", ".join(parity.COLUMNS)
_PAYMENTS: Final = f"SELECT {_COLUMNS} FROM payments WHERE payment_id > $1 ORDER BY payment_id LIMIT $2"  # noqa: S608 - our own names
_SOME: Final = f"SELECT {_COLUMNS} FROM payments WHERE payment_id = ANY($1::uuid[])"  # noqa: S608 - our own names
_VERSIONS: Final = "SELECT payment_id, version FROM payment_events WHERE payment_id = ANY($1::uuid[])"
_OFFSETS: Final = "SELECT partition, next_offset FROM sink_offsets WHERE topic = $1"


class Behind(Exception):
    """The sink has not written what the topic holds, within the time it had."""


async def read_events(kafka: KafkaSettings) -> tuple[Fold, dict[int, int], bool]:
    """All events on the topic, the offset after the last one by partition, and whether the topic holds its first one.

    Raises UnknownTopic, KafkaError, TimeoutError.
    """
    fold, ends, whole = Fold(), dict[int, int](), True
    async with aclosing(present(kafka, topics.EVENTS)) as found:
        async for record in found:
            if record.partition not in ends and record.offset > 0:
                whole = False
            ends[record.partition] = record.offset + 1
            fold.add(of(record))
    return fold, ends, whole


def of(record: Any) -> Record:
    """A consumer's record as the sink takes it."""
    return Record(record.topic, record.partition, record.offset, record.timestamp, record.value or b"")


async def results(kafka: KafkaSettings) -> dict[uuid.UUID, str]:
    """The states in ``payments.results``, by payment. Raises UnknownTopic, KafkaError, TimeoutError."""
    found: dict[uuid.UUID, tuple[int, str]] = {}
    async with aclosing(present(kafka, topics.RESULTS)) as records:
        async for record in records:
            result = codec.decode(record.value, PaymentResult)
            payment_id = uuid.UUID(result.payment_id)
            if result.version >= found.get(payment_id, (0, ""))[0]:
                found[payment_id] = result.version, result.status.value
    return {payment_id: state for payment_id, (_, state) in found.items()}


async def caught_up(db: asyncpg.Connection, ends: Mapping[int, int], within_s: float = CATCH_UP_S) -> None:
    """Return once the sink has written every partition up to these offsets. Raises Behind."""
    until = time.monotonic() + within_s
    while True:
        done = {row["partition"]: row["next_offset"] for row in await db.fetch(_OFFSETS, topics.EVENTS)}
        behind = {part: end - done.get(part, 0) for part, end in ends.items() if done.get(part, 0) < end}
        if not behind:
            return
        if time.monotonic() > until:
            raise Behind(f"the sink is {sum(behind.values()):,} events behind: is it running? see `kifiya status`")
        await asyncio.sleep(0.2)


async def check(kafka: KafkaSettings, database_url: str, *, within_s: float = CATCH_UP_S) -> Report:
    """Fold the topic, let the sink catch up, compare. What moved meanwhile is looked at again, once all stands.

    Raises UnknownTopic, KafkaError, TimeoutError, Behind, OSError and asyncpg's errors.
    """
    db = await asyncpg.connect(
        database_url, timeout=5, command_timeout=STATEMENT_S, server_settings={"role": "kifiya_ops"}
    )
    try:
        fold, ends, whole = await read_events(kafka)
        await caught_up(db, ends, within_s)
        told = await results(kafka)
        found, older = await _compare(db, fold, told, whole=whole)
        for _ in range(2):  # a payment that went on while we read differs, until it is read again
            if not found:
                break
            fold, ends, whole = await read_events(kafka)
            await caught_up(db, ends, within_s)
            told = await results(kafka)
            found, older = await _compare(db, fold, told, whole=whole, only=found)
        await _name_columns(db, kafka, found)
        events = sum(each.versions.bit_count() for each in fold.payments.values())
        return Report(
            payments=len(fold.payments) + sum(1 for each in found if each not in fold.payments),
            events=events, refused=fold.refused, differences={str(key): said for key, said in found.items()},
            older=older,
        )  # fmt: skip
    finally:
        await db.close(timeout=2)


async def _compare(
    db: asyncpg.Connection,
    fold: Fold,
    told: Mapping[uuid.UUID, str],
    *,
    whole: bool,
    only: Iterable[uuid.UUID] | None = None,
) -> tuple[dict[uuid.UUID, str], int]:
    """What differs, by payment; and how many rows are older than what the topic holds."""
    found: dict[uuid.UUID, str] = {}
    seen: set[uuid.UUID] = set()
    older = 0
    async for page, versions in _pages(db, only):
        for row in page:
            payment_id = uuid.UUID(bytes=row["payment_id"].bytes)
            seen.add(payment_id)
            expected = fold.payments.get(payment_id)
            if expected is None and not whole:
                older += 1
                continue
            said = parity.row(expected, tuple(row)) or parity.result(expected, told.get(payment_id))
            if not said and expected is not None and (whole or expected.versions & 2):
                said = parity.trail(expected.versions, versions.get(payment_id, ()))
            if said:
                found[payment_id] = said
    for payment_id in fold.payments if only is None else set(only) & set(fold.payments):
        if payment_id not in seen:
            found[payment_id] = parity.row(fold.payments[payment_id], None) or ""
    return found, older


async def _pages(
    db: asyncpg.Connection, only: Iterable[uuid.UUID] | None
) -> AsyncIterator[tuple[list[asyncpg.Record], dict[uuid.UUID, list[int]]]]:
    """Rows of payments with the versions of their events, a page at a time."""
    if only is not None:
        wanted = list(only)
        for start in range(0, len(wanted), PAGE):
            yield await _with_versions(db, await db.fetch(_SOME, wanted[start : start + PAGE]))
        return
    last = uuid.UUID(int=0)
    while page := await db.fetch(_PAYMENTS, last, PAGE):
        yield await _with_versions(db, page)
        last = page[-1]["payment_id"]


async def _with_versions(
    db: asyncpg.Connection, page: list[asyncpg.Record]
) -> tuple[list[asyncpg.Record], dict[uuid.UUID, list[int]]]:
    versions: dict[uuid.UUID, list[int]] = {}
    for row in await db.fetch(_VERSIONS, [row["payment_id"] for row in page]):
        versions.setdefault(uuid.UUID(bytes=row["payment_id"].bytes), []).append(row["version"])
    return page, versions


async def _name_columns(db: asyncpg.Connection, kafka: KafkaSettings, found: dict[uuid.UUID, str]) -> None:
    """Say of the first few that differ in which columns they do: the digests only say that they do."""
    wanted = {key for key, said in list(found.items())[:SHOWN] if said == parity.DIFFERS}
    if not wanted:
        return
    newest: dict[uuid.UUID, tuple[Any, ...]] = {}
    async with aclosing(present(kafka, topics.EVENTS)) as records:
        async for record in records:
            for row in rows.batch([of(record)]).payments:
                if row[0] in wanted:
                    newest[row[0]] = rows.newer(newest.get(row[0], row), row)
    for stored in await db.fetch(_SOME, list(wanted)):
        payment_id = uuid.UUID(bytes=stored["payment_id"].bytes)
        if payment_id in newest:
            names = parity.differing(newest[payment_id], tuple(stored))
            found[payment_id] = f"differs from its newest event in {', '.join(names)}"
