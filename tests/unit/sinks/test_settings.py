"""A bad setting of the sink ends the start with one line and its name, and never shows a password."""

from __future__ import annotations

import sys

import pytest

from sinks import __main__ as entry
from sinks import migrate
from sinks.settings import SinkSettings

GOOD = {"KAFKA_BOOTSTRAP": "a:9092", "DATABASE_URL": "postgresql://kifiya:secret@localhost/kifiya"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SinkSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_BOOTSTRAP", None),
        ("KAFKA_BOOTSTRAP", ""),
        ("KAFKA_DIALECT", "rabbit"),
        ("DATABASE_URL", None),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "nonsense secret"),
        ("DATABASE_URL", "mysql://kifiya:secret@localhost/kifiya"),
        ("DATABASE_URL", "postgresql://kifiya:secret@localhost:port/kifiya"),
        ("DATABASE_URL", "postgresql://kifiya:secret@[::/kifiya"),
        ("ADMIN_PORT", "70000"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["sinks"])
    with pytest.raises(SystemExit) as found:
        entry.main()
    said = str(found.value.code)
    assert said.startswith(f"sinks: {name}: ")
    assert "\n" not in said
    assert "secret" not in said


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://kifiya:secret@db.example:5432/kifiya?sslmode=verify-full",
        "postgres://kifiya@localhost/kifiya",
        "postgresql:///kifiya?host=/run/postgresql",
    ],
)
def test_urls_that_asyncpg_takes_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert SinkSettings().database_url == url
    assert SinkSettings().kafka.bootstrap == "a:9092"


def test_a_migration_that_reaches_nobody_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://kifiya:secret@127.0.0.1:1/kifiya")
    monkeypatch.delenv("KAFKA_BOOTSTRAP")  # a migration needs none
    monkeypatch.setattr(sys, "argv", ["sinks", "migrate"])
    with pytest.raises(SystemExit, match=r"^sinks: DATABASE_URL: ConnectionRefusedError: ") as found:
        entry.main()
    assert "secret" not in str(found.value)


def test_statements_are_split_where_a_line_ends_with_a_semicolon() -> None:
    found = migrate.statements("0001_payments.sql")
    assert sum(statement.startswith("CREATE TABLE") for statement in found) == 5
    assert not any(statement.endswith(";") or statement.startswith("--") for statement in found)
