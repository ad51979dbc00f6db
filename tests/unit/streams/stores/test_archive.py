"""The archive is away, whatever its client raises: the payment goes on, and no exception reaches it."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from streams.errors import ArchiveAway
from streams.stores.archive import REST_S, PostgresArchive


@pytest.mark.parametrize(
    "error",
    [OSError("reset"), TimeoutError(), asyncpg.QueryCanceledError("too long"), asyncpg.InterfaceError("closed"),
     asyncpg.InternalClientError("another operation is in progress")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_whatever_is_raised_the_archive_is_away_and_rests(error: Exception, monkeypatch: Any) -> None:
    asked, now = [0], [100.0]

    async def connect(*_: Any, **__: Any) -> None:
        asked[0] += 1
        raise error

    monkeypatch.setattr(asyncpg, "connect", connect)
    async with PostgresArchive("unused", lambda: now[0]) as archive:
        for _ in range(2):
            with pytest.raises(ArchiveAway):
                await archive.find("id")
        assert asked == [1]
        now[0] += REST_S
        with pytest.raises(ArchiveAway):
            await archive.find("id")
        assert asked == [2]
