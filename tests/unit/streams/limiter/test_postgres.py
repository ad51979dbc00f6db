"""The PostgreSQL adapter translates whatever its client raises, and throws the connection away."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from schemas.lanes import Lane
from streams.errors import LimiterUnavailable
from streams.limiter.postgres import PostgresLimiter


class Connection:
    """Answers by raising; a number of it is told when it is dropped."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.terminated = False

    def is_closed(self) -> bool:
        return self.terminated

    def terminate(self) -> None:
        self.terminated = True

    async def fetchrow(self, *_: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "error",
    [OSError("reset"), TimeoutError(), asyncpg.LockNotAvailableError("held"), asyncpg.QueryCanceledError("too long"),
     asyncpg.UndefinedFunctionError("not migrated"), asyncpg.InterfaceError("closed"),
     asyncpg.InternalClientError("another operation is in progress")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_whatever_it_raises_is_no_permit_and_the_next_question_has_a_new_connection(error: Exception) -> None:
    made: list[Connection] = []

    async def connect() -> Connection:
        made.append(Connection(error))
        return made[-1]

    async with PostgresLimiter("unused", Lane(name="lane"), connect=connect) as limiter:
        for _ in range(2):
            with pytest.raises(LimiterUnavailable, match=type(error).__name__):
                await limiter.acquire()
            assert not limiter.healthy
    assert [each.terminated for each in made] == [True, True]


async def test_a_postgresql_where_nothing_may_be_reserved_is_not_there() -> None:
    async def connect() -> Connection:
        return Connection((1, False))

    async with PostgresLimiter("unused", Lane(name="lane"), connect=connect) as limiter:
        with pytest.raises(LimiterUnavailable, match="InsufficientPrivilege"):
            await limiter.acquire()
        assert not limiter.healthy


async def test_where_no_connection_is_made_the_limiter_is_away() -> None:
    async def connect() -> Connection:
        raise ConnectionRefusedError

    async with PostgresLimiter("unused", Lane(name="lane"), connect=connect) as limiter:
        with pytest.raises(LimiterUnavailable, match="ConnectionRefused"):
            await limiter.acquire()
