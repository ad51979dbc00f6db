"""What an error of asyncpg's means: a row is wrong for ever, PostgreSQL is away, or it is none of PostgreSQL's."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from sinks.postgres import Away, Database, Refused, translate
from tests.unit.sinks.test_patience import BATCH


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (asyncpg.DataError("x"), Refused),
        (asyncpg.CharacterNotInRepertoireError("x"), Refused),
        (asyncpg.UntranslatableCharacterError("x"), Refused),
        (asyncpg.UniqueViolationError("x"), Refused),
        (asyncpg.CheckViolationError("x"), Refused),
        (asyncpg.NotNullViolationError("x"), Refused),
        (asyncpg.ProgramLimitExceededError("x"), Refused),
        (asyncpg.WithCheckOptionViolationError("x"), Refused),
        (asyncpg.RaiseError("x"), Refused),
        (asyncpg.UndefinedTableError("x"), Away),
        (asyncpg.InsufficientPrivilegeError("x"), Away),
        (asyncpg.DeadlockDetectedError("x"), Away),
        (asyncpg.QueryCanceledError("x"), Away),
        (asyncpg.AdminShutdownError("x"), Away),
        (asyncpg.CannotConnectNowError("x"), Away),
        (asyncpg.TooManyConnectionsError("x"), Away),
        (asyncpg.DiskFullError("x"), Away),
        (asyncpg.ReadOnlySQLTransactionError("x"), Away),
        (asyncpg.InvalidPasswordError("x"), Away),
        (asyncpg.InterfaceError("x"), Away),
        (asyncpg.InternalClientError("x"), Away),
        (ConnectionResetError(), Away),
        (OSError(), Away),
        (TimeoutError(), Away),
        (asyncio.CancelledError(), type(None)),
        (KeyError("ours"), type(None)),
    ],
)
def test_each_error_has_its_meaning_and_says_nothing_of_the_row(error: BaseException, meaning: type) -> None:
    found = translate(error)
    assert type(found) is meaning
    assert found is None or str(found) == type(error).__name__


async def test_where_nobody_listens_postgresql_is_away() -> None:
    database = Database("postgresql://nobody:secret@127.0.0.1:1/nowhere")
    with pytest.raises(Away, match="ConnectionRefusedError"):
        await database.write(BATCH)
    with pytest.raises(Away):
        await database.ping()
    database.close()
