"""A bad setting ends the start with its name, and never shows a password."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ingress import __main__ as entry
from ingress.app import create_app
from ingress.settings import IngressSettings
from schemas.seal import Seals

GOOD = {
    "KAFKA_BOOTSTRAP": "a:9092,b:9092",
    "REDIS_URL": "redis://:secret@localhost:6379/0",
    "DATABASE_URL": "postgresql://kifiya:secret@localhost/kifiya",
    "API_KEY_PEPPER": "a secret known to few",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*IngressSettings.model_fields, "lanes"):
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def read() -> IngressSettings:
    return IngressSettings()


def test_the_defaults_keep_a_create_below_two_seconds() -> None:
    settings = read()
    assert settings.publish_timeout_s + 0.5 <= 2
    assert settings.kafka.bootstrap == "a:9092,b:9092"
    assert list(settings.lane_table()) == ["simulator"]
    assert create_app(settings).title == "Kifiya Payment Gateway"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_BOOTSTRAP", "localhost"), ("KAFKA_BOOTSTRAP", "a:9092,"), ("KAFKA_BOOTSTRAP", ""),
        ("KAFKA_BOOTSTRAP", "a:secret"), ("KAFKA_DIALECT", "rabbit"),
        ("REDIS_URL", "http://:secret@x"), ("REDIS_URL", "redis://:secret@x:port"), ("REDIS_URL", ""),
        ("DATABASE_URL", "mysql://u:secret@x"), ("DATABASE_URL", "postgresql://u:secret@x:99999999/db"),
        ("INGRESS_PORT", "65536"), ("INGRESS_PORT", "-1"), ("INGRESS_PORT", "x"), ("PUBLISH_TIMEOUT_S", "0"),
        ("PUBLISH_TIMEOUT_S", "nan"), ("IN_FLIGHT_MAX", "0"), ("REMEMBER_S", "1"), ("LOG_LEVEL", "loud"),
        ("CORS_ORIGINS", "*"), ("CORS_ORIGINS", "https://shop.example/"), ("CORS_ORIGINS", "https://a.example;b.example"),
        ("HSTS_MAX_AGE_S", "-1"), ("API_KEY_PEPPER", "secret"), ("API_KEY_GRACE_S", "-1"),
        ("COMMAND_SECRET", "secret"), ("COMMAND_SECRET", f"{'secret' * 9},secret"),
        ("RATE_LIMIT", "fast"), ("RATE_LIMIT", "0/second"),
        ("LANES", "{"), ("LANES", "{}"), ("LANES", '{"UPPER": {}}'),
    ],
)  # fmt: skip
def test_a_bad_one_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as found:
        entry.main(signals=())
    assert name in str(found.value).upper() or name == "LANES"
    assert str(found.value).startswith("ingress: ")
    assert "secret" not in str(found.value)


@pytest.mark.parametrize("name", list(GOOD))
def test_what_must_be_set_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(ValidationError):
        read()
    with pytest.raises(SystemExit, match=name):
        entry.main(signals=())


def test_origins_are_none_by_default_and_several_where_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read().origins == frozenset()
    monkeypatch.setenv("CORS_ORIGINS", " https://shop.example , http://localhost:3000,")
    assert read().origins == {"https://shop.example", "http://localhost:3000"}
    assert any("Cors" in str(each) for each in create_app(read()).user_middleware)


def test_commands_are_sealed_under_the_first_secret_and_not_at_all_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read().seals() is None
    monkeypatch.setenv("COMMAND_SECRET", f"{'new' * 16},{'old' * 16}")
    seals = read().seals()
    assert seals is not None
    assert Seals(["new" * 16]).sealed_at(b"v", seals.header(b"v", 7)[1]) == 7
    assert "newnew" not in repr(read())
