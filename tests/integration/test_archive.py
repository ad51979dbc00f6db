"""The archive over the tables that the sink writes, and over a PostgreSQL that is away or hangs."""

from __future__ import annotations

import asyncio
import time
import uuid

import asyncpg
import pytest

from schemas.records import State
from streams.errors import ArchiveAway
from streams.stores.archive import ANSWER_S, REST_S, Archived, MemoryArchive, PostgresArchive, open_archive
from tests.integration.archived import settle, url

__all__ = ["url"]  # a fixture


async def test_what_the_sink_has_written_is_found(url: str) -> None:
    async with PostgresArchive(url) as archive:
        assert await archive.find(str(uuid.uuid4())) is None
        found = await archive.find(await settle(url))
        assert found == Archived(State.COMPLETED, 3, "f1")
        assert found.final
        assert found.called
        fresh = await archive.find(await settle(url, "PENDING", 1))
        assert fresh is not None
        assert not fresh.final
        assert not fresh.called


async def test_many_at_once_and_a_cancelled_one_share_the_connection(url: str) -> None:
    payment_id = await settle(url)
    async with PostgresArchive(url) as archive:
        await archive.find(payment_id)
        asking = [asyncio.create_task(archive.find(payment_id)) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert all(answer == Archived(State.COMPLETED, 3, "f1") for answer in answers[1:])
        assert await archive.find(payment_id) is not None


async def test_a_lost_connection_is_opened_anew(url: str) -> None:
    payment_id = await settle(url)
    now = 0.0
    async with PostgresArchive(url, lambda: now) as archive:
        await archive.find(payment_id)
        server = await asyncpg.connect(url)
        await server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kifiya-dispatch'"
        )
        await server.close()
        await asyncio.sleep(0.1)
        try:
            found = await archive.find(payment_id)
        except ArchiveAway:
            now = REST_S
            found = await archive.find(payment_id)
        assert found is not None


@pytest.mark.parametrize("hangs", [True, False])
async def test_away_it_says_so_in_time_and_then_at_once_for_a_while(hangs: bool) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if not hangs:
        server.close()
    now = 0.0
    async with PostgresArchive(f"postgresql://x:y@127.0.0.1:{port}/z", lambda: now) as archive:
        begun = time.monotonic()
        with pytest.raises(ArchiveAway):
            await archive.find(str(uuid.uuid4()))
        assert time.monotonic() - begun < ANSWER_S + 5
        begun = time.monotonic()
        for _ in range(100):
            with pytest.raises(ArchiveAway):
                await archive.find(str(uuid.uuid4()))
        assert time.monotonic() - begun < 20 * ANSWER_S  # a fifth of what a hundred waits would take
        now = REST_S
        with pytest.raises(ArchiveAway):
            await archive.find(str(uuid.uuid4()))
    server.close()


async def test_without_a_database_nothing_is_known() -> None:
    async with open_archive("") as archive:
        assert isinstance(archive, MemoryArchive)
        assert await archive.find(str(uuid.uuid4())) is None
