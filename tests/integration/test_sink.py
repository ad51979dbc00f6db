"""The sink as a process on real servers: rows once, newest wins, nothing stalls, PostgreSQL may go and come back."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from string import ascii_letters

import asyncpg
import pytest
import pytest_asyncio

from ops.kafka.admin import create_topics
from ops.kafka.clients import KafkaSettings, Message, Publisher
from ops.local import stack as local
from ops.local.stack import Stack
from schemas import codec, topics
from schemas.records import EventType
from tests.integration import roles
from tests.integration.sink_role import (
    Rows,
    a_database,
    event,
    ids,
    letter,
    sink,
    to_events,
    to_letters,
    until,
    written,
)
from tests.integration.tables import migrate

pytestmark = pytest.mark.kafka


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rows(stack: Stack) -> AsyncIterator[Rows]:
    async with a_database(stack.database_url) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kafka(stack: Stack) -> KafkaSettings:
    settings = roles.settings_of(stack)
    await create_topics(settings, topics.declare([]))
    return settings


async def test_events_become_rows_and_the_view_answers(kafka: KafkaSettings, rows: Rows) -> None:
    (one,) = ids(1)
    async with sink(kafka, rows) as role, Publisher(kafka) as publisher:
        await role.ready()
        await publisher.publish(
            to_events(
                event(one, 1),
                event(one, 2),
                event(one, 3, provider_charge_id="ch_1", call="charge", outcome="approved", sent_at_us=5),
                event(one, 4, type=EventType.CANCEL_REFUSED, provider_charge_id="ch_1", reason="already-completed"),
            )
        )
        await rows.reach([one], 4)
        row = (await rows.payments([one]))[one]
        assert (row["state"], row["amount_minor"], row["provider_charge_id"]) == ("COMPLETED", 1250, "ch_1")
        assert (row["metadata"], row["attempt"]) == ('{"order": "7"}', 1)
        found = await rows.fetch(
            "SELECT * FROM payment_events WHERE payment_id = $1 ORDER BY version", row["payment_id"]
        )
        assert [item["version"] for item in found] == [1, 2, 3, 4]
        assert {item["topic"] for item in found} == {topics.EVENTS}
        assert [item["offset"] for item in found] == sorted({item["offset"] for item in found})
        assert (found[2]["outcome"], found[2]["call"], found[2]["sent_at_us"]) == ("approved", "charge", 5)
        (seen,) = await rows.fetch("SELECT * FROM payment_status WHERE payment_id = $1", row["payment_id"])
        assert (str(seen["amount"]), seen["is_final"]) == ("12.50", True)
        assert (seen["age_s"], seen["queue_s"], seen["processing_s"]) == (2, 1, 1)  # a refused cancel moves nothing
        (offset,) = await rows.fetch(
            "SELECT next_offset FROM sink_offsets WHERE topic = $1 AND partition = $2",
            topics.EVENTS,
            found[-1]["partition"],
        )
        assert offset["next_offset"] > found[-1]["offset"]
        assert await role.metric('kifiya_sink_rows_total{table="payment_events"}') >= 4
        role.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await role.process.wait() == 0


@pytest.mark.long
async def test_an_older_version_never_overwrites_a_newer_one(kafka: KafkaSettings, rows: Rows) -> None:
    early, late = ids(2)
    async with sink(kafka, rows), Publisher(kafka) as publisher:
        await publisher.publish(to_events(event(early, 3), partition=0))
        await rows.reach([early], 3)
        stale = [event(early, version, provider_charge_id="wrong") for version in (2, 1, 3)]
        await publisher.publish(to_events(*stale, event(late), partition=0))
        await rows.reach([late], 1)
        row = (await rows.payments([early]))[early]
        assert (row["version"], row["state"], row["provider_charge_id"]) == (3, "COMPLETED", None)
        assert (await rows.events([early]))[early] == 3  # the stale ones are history, and stand there once


@pytest.mark.long
async def test_kills_in_the_middle_lose_and_double_nothing(kafka: KafkaSettings, rows: Rows) -> None:
    payments = ids(1000)
    messages = [m for version in (1, 2, 3) for m in to_events(*(event(each, version) for each in payments))]

    async def in_hand() -> bool:
        waiting = "application_name = 'kifiya-sink' AND wait_event_type = 'Lock' AND datname = current_database()"
        return bool(await rows.fetch(f"SELECT FROM pg_stat_activity WHERE {waiting}"))

    async def some() -> bool:
        return bool(await rows.events(payments))

    async with Publisher(kafka) as publisher:
        blocker = await asyncpg.connect(rows.url)
        async with sink(kafka, rows) as role, blocker.transaction():
            await blocker.execute("LOCK TABLE payment_events IN SHARE MODE")
            await publisher.publish(messages)
            await until(in_hand, "a transaction between payments and events")
            role.process.kill()
            await role.process.wait()
        await blocker.close()
        assert not await rows.payments(payments)  # all of a batch or nothing
        async with sink(kafka, rows) as role:
            await until(some, "the first rows, their offsets hardly committed")
            role.process.kill()
            await role.process.wait()
        async with sink(kafka, rows):
            await rows.reach(payments, 3)
            await publisher.publish(messages)  # all of it once more, under other offsets
            markers = ids(12)  # one behind them on each partition
            for partition, marker in enumerate(markers):
                await publisher.publish(to_events(event(marker), partition=partition))
            await rows.reach(markers, 1)
    assert await rows.events(payments) == dict.fromkeys(payments, 3)


async def test_what_no_row_can_hold_is_dead_lettered_once_and_stalls_nothing(kafka: KafkaSettings, rows: Rows) -> None:
    good, nul, tall, wide, twin = ids(5)
    other = event(good)
    bad = {
        "payment_id is not a UUID": event("no-uuid"),
        "a text holds a NUL character": event(nul, description="a\0b"),
        "a time is not between the years 1 and 9999": event(tall, at_ms=2**62),
        "ProgramLimitExceededError": event(
            wide, idempotency_key="".join(secrets.choice(ascii_letters) for _ in range(9000))
        ),
        "UniqueViolationError": event(twin, idempotency_key=other.idempotency_key),
    }
    junk = [b"", b"junk", codec.encode(other)[:-3], b"junk " + b"4111 1111 1111 1111"]
    said = event(good, 2, detail="a\0b", reason="c\0d", provider_charge_id="e\0f")
    async with sink(kafka, rows) as role, Publisher(kafka) as publisher:
        mixed = to_events(*bad.values(), partition=5)
        mixed += [Message(topics.EVENTS, None, value, partition=5) for value in junk]
        await publisher.publish(to_events(other, partition=5))
        await publisher.publish([*mixed, *to_events(said, partition=5)])
        await rows.reach([good], 2)

        async def stored() -> bool:
            found = await rows.letters("stage = 'sink' AND detail = ANY($1::text[])", list(bad))
            return {row["detail"] for row in found} == set(bad)

        await until(stored, "a dead letter for each refused event")
        for detail, refused in bad.items():
            (row,) = await rows.letters("original = $1", codec.encode(refused))
            assert (row["reason"], row["detail"]) == ("refused-by-database", detail)
            assert (row["topic"], row["partition"]) == (topics.EVENTS, 5)
            assert (row["payment_id"], row["merchant_id"]) == (refused.payment_id, "acme")
        for value in junk:
            digest = hashlib.sha256(value).hexdigest()
            (row,) = await rows.letters("original_sha256 = $1", digest)
            assert row["reason"] == "undecodable"
            assert row["original"] == (b"" if b"4111" in value else value)
        sent = Counter(found.origin for found in await written(kafka) if found.letter.partition == 5)
        assert len(sent) == len(bad) + len(junk)
        assert set(sent.values()) == {1}
        assert not await rows.payments([nul, tall, wide, twin])
        (told,) = await rows.fetch(
            "SELECT * FROM payment_events WHERE payment_id = $1 AND version = 2", uuid.UUID(good)
        )
        assert (told["detail"], told["reason"]) == ("a\ufffdb", "c\ufffdd")
        assert await role.metric('kifiya_sink_refused_total{reason="undecodable",topic="payments.events"}') == len(junk)


async def test_a_dead_letter_is_stored_once_whatever_is_in_it(kafka: KafkaSettings, rows: Rows) -> None:
    base = uuid.uuid4().int >> 80
    bad = letter(base + 1, reason="r\0" * 500, payment_id="p" * 9000, topic="t" * 9000, at_ms=2**62)
    barred, lost, last = letter(base + 2, reason="barred"), letter(base + 3), letter(base + 4)
    await rows.fetch("ALTER TABLE dead_letters ADD CONSTRAINT barred CHECK (reason <> 'barred')")
    await rows.fetch(f'ALTER TABLE dead_letters ADD CONSTRAINT lost CHECK ("offset" <> {lost.offset})')
    junk = b"no letter " + os.urandom(8)
    async with sink(kafka, rows) as role, Publisher(kafka) as publisher:
        twice = letter(base)
        await publisher.publish(to_letters(twice, replace(twice, detail="later"), bad, barred, lost))
        await publisher.publish([Message(topics.DEAD_LETTER, None, junk, partition=0), *to_letters(last)])

        async def done() -> bool:
            return bool(await rows.letters('"offset" = $1 AND topic = $2', last.offset, last.topic))

        await until(done, "the last letter")
        (row,) = await rows.letters('"offset" = $1', twice.offset)
        assert (row["detail"], row["original"], row["stage"]) == (twice.detail, b"junk", "intake")
        (row,) = await rows.letters('"offset" = $1', bad.offset)
        assert (len(row["topic"]), len(row["payment_id"]), row["reason"][:2]) == (255, 255, "r\ufffd")
        (row,) = await rows.letters('"offset" = $1', barred.offset)
        assert (row["reason"], row["stage"], row["original"]) == ("refused-by-database", "sink", b"")
        assert row["original_sha256"] == barred.original_sha256
        (row,) = await rows.letters("original_sha256 = $1", hashlib.sha256(junk).hexdigest())
        assert (row["topic"], row["reason"]) == (topics.DEAD_LETTER, "undecodable")
        assert not await rows.letters('"offset" = $1', lost.offset)
        assert await role.metric("kifiya_sink_unstorable_total") == 1
        assert not [found for found in await written(kafka) if found.letter.topic == topics.DEAD_LETTER]  # no circle


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_postgresql_goes_and_comes_back_and_the_same_process_writes_on(kafka: KafkaSettings, how: str) -> None:
    parts = frozenset({"postgres"})
    async with local.running("embedded", parts=parts, overrides=False) as own:
        rows, server = Rows(own.database_url), own.processes["postgres"]
        await migrate(rows.url)
        async with sink(kafka, rows) as role, Publisher(kafka) as publisher:
            await role.ready()
            before, during = ids(50), ids(500)
            await publisher.publish(to_events(*(event(each) for each in before)))
            await rows.reach(before, 1)
            if how == "killed":
                server.kill()
            else:
                os.killpg(server.pid or 0, signal.SIGSTOP)
                for child in await children(server.pid or 0):
                    os.kill(child, signal.SIGSTOP)
            await publisher.publish([m for v in (1, 2) for m in to_events(*(event(each, v) for each in during))])

            async def noticed() -> bool:
                return await role.missing() == ["postgres"] and await role.metric("kifiya_sink_postgres_up") == 0

            await until(noticed, "it says that PostgreSQL is missing")
            if how == "killed":
                await server.restart()
            else:
                for child in await children(server.pid or 0):
                    os.kill(child, signal.SIGCONT)
                os.killpg(server.pid or 0, signal.SIGCONT)
            await rows.reach(during, 2)
            assert await rows.events(during) == dict.fromkeys(during, 2)
            await role.ready()
            assert role.process.returncode is None


async def children(pid: int) -> list[int]:
    """The backends of a PostgreSQL: each is the leader of a session of its own."""
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
