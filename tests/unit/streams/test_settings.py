"""A bad setting ends the role at start, with the variable's name; so does a role that is not one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from schemas.seal import Seals
from streams import __main__ as main
from streams.settings import StreamSettings

SECRET = "a secret of the tests that is longer than 32 bytes"
GOOD = {"KAFKA_BOOTSTRAP": "127.0.0.1:9", "SIMULATOR_URL": "http://127.0.0.1:9"}


def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(sys.path)} | environment
    return subprocess.run(
        [sys.executable, "-m", "streams", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "change", "named"),
    [
        (["intake"], {"KAFKA_BOOTSTRAP": None}, "KAFKA_BOOTSTRAP"),
        (["intake"], {"KAFKA_DIALECT": "rabbit"}, "KAFKA_DIALECT"),
        (["intake"], {"COMMAND_PARTITIONS": "0"}, "COMMAND_PARTITIONS"),
        (["intake"], {"DEDUP_WINDOW_S": "-1"}, "DEDUP_WINDOW_S"),
        (["intake"], {"LEDGER_WINDOW_S": "3600"}, "LEDGER_WINDOW_S"),
        (["delay"], {"RETRY_TIERS": "5s,1s"}, "RETRY_TIERS"),
        (["delay"], {"RETRY_TIERS": "soon"}, "soon"),
        (["delay"], {"RETRY_TIERS": ""}, "RETRY_TIERS"),
        (["intake"], {"MERCHANT_WEIGHTS": '{"shop": 0}'}, "MERCHANT_WEIGHTS: merchant 'shop'"),
        (["intake"], {"KAFKA_MERCHANTS": "shop,*"}, "KAFKA_MERCHANTS"),
        (["intake"], {"KAFKA_MERCHANTS": "shop"}, "COMMAND_SECRET: is missing"),
        (["intake"], {"KAFKA_MERCHANTS": ""}, "COMMAND_SECRET: is missing"),
        (["intake"], {"COMMAND_SECRET": "too short"}, "COMMAND_SECRET"),
        (["intake"], {"LANES": "[]"}, "LANES"),
        (["intake"], {"LANES": '{"x": {"limit": 0}}'}, "limit"),
        (["intake"], {"LANES": '{"x": {"speed": 9}}'}, "speed"),
        (["dispatch", "--lane", "nowhere"], {}, "nowhere"),
        (["dispatch", "--lane", "simulator"], {"MAX_ATTEMPTS": "many"}, "MAX_ATTEMPTS"),
        (["dispatch", "--lane", "simulator"], {}, "REDIS_URL"),
        (["dispatch", "--lane", "simulator"], {"LIMITER_FALLBACK": "always"}, "LIMITER_FALLBACK"),
        (["dispatch", "--lane", "simulator"], {"LIMITER_FALLBACK": "postgres"}, "needs DATABASE_URL"),
        (["dispatch", "--lane", "simulator"], {"REDIS_URL": "redis://x", "SIMULATOR_URL": None}, "SIMULATOR_URL"),
        (["dispatch", "--lane", "x"], {"REDIS_URL": "redis://x", "LANES": '{"x": {"provider": "stripy"}}'}, "stripy"),
        (["dispatch"], {}, "--lane"),
        (["refund"], {}, "refund"),
        ([], {}, "role"),
    ],
)
def test_a_bad_start_says_what_is_wrong(
    arguments: list[str], change: dict[str, str | None], named: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "environ", {name: value for name, value in (GOOD | change).items() if value is not None})
    monkeypatch.setattr(sys, "argv", ["streams", *arguments])
    monkeypatch.setattr(main, "configure_logging", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr().err + str(ended.value.code)
    assert ended.value.code == 2 or isinstance(ended.value.code, str)  # a text is told, and the status is 1
    assert named in said
    assert "too short" not in said


@pytest.mark.parametrize(
    ("change", "named"), [({}, "Kafka at 127.0.0.1:9"), ({"LANES": '{"x": {"limit": 0}}'}, "limit")]
)
def test_a_start_that_fails_is_one_line_and_a_status(change: dict[str, str], named: str) -> None:
    done = started("intake", **GOOD | change)
    assert done.returncode == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_the_windows_that_belong_together_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "127.0.0.1:9")
    assert StreamSettings().ledger_window_s >= StreamSettings().dedup_window_s
    monkeypatch.setenv("DEDUP_WINDOW_S", "100")
    monkeypatch.setenv("LEDGER_WINDOW_S", "100")
    assert StreamSettings().ledger_window_s == 100


def test_each_merchant_may_be_named_until_a_setting_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "127.0.0.1:9")
    assert StreamSettings().admission().merchants is None
    monkeypatch.setenv("KAFKA_MERCHANTS", "shop, acme")
    monkeypatch.setenv("COMMAND_SECRET", f"{SECRET},{'an older one ' * 3}")
    monkeypatch.setenv("DEDUP_WINDOW_S", "1000")
    found = StreamSettings().admission()
    value = b"{}"
    assert found.merchants == frozenset({"shop", "acme"})
    assert found.refusal("bob", value, (Seals([SECRET]).header(value, 0),), 900_000) is None
    assert found.refusal("bob", value, (Seals([SECRET]).header(value, 0),), 900_001) is not None
    assert SECRET not in repr(StreamSettings())


@pytest.mark.parametrize(
    ("said", "database", "expected"),
    [
        ("", "", "off"),
        ("", "postgres://x", "postgres"),
        ("off", "postgres://x", "off"),
        ("follow", "postgres://x", "follow"),
    ],
)
def test_a_lane_leaves_redis_where_it_knows_a_postgresql_and_nothing_else_is_said(
    said: Any, database: str, expected: str
) -> None:
    settings = StreamSettings(kafka_bootstrap="x:1", database_url=database, limiter_fallback=said)
    assert settings.fallback == expected
