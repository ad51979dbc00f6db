"""Every command explains itself, starts light, and fails with one line that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.unit.ops.cli.run import CLOSED, complaint, kifiya

COMMANDS = (
    "send",
    "doctor",
    "topics",
    "topics create",
    "topics list",
    "topics tail",
    "topics trim",
    "dead-letters",
    "dead-letters list",
    "dead-letters show",
    "dead-letters replay",
)
NEED_KAFKA = (
    "send --amount 1 --currency USD --payment-method pm",
    "topics create --timeout 1",
    "topics list",
    "topics tail payments.events",
    "topics tail payments.events --follow",
    "topics trim",
    "dead-letters list",
    "dead-letters show a/0/0",
    "dead-letters replay a/0/0",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = kifiya(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_help_loads_nothing_heavy() -> None:
    heavy = {"faust", "asyncpg", "redis", "alembic", "sqlalchemy", "fastapi", "fastavro", "rich.table"}
    code = f"import sys, ops.cli.main; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_completion_can_be_installed() -> None:
    assert "--install-completion" in kifiya("--help").stdout


@pytest.mark.parametrize("command", NEED_KAFKA)
def test_without_a_gateway_a_command_says_how_to_get_one(command: str) -> None:
    assert "start one with `kifiya up`, or set KAFKA_BOOTSTRAP" in complaint(kifiya(*command.split()))


@pytest.mark.parametrize("command", NEED_KAFKA)
def test_a_kafka_that_is_away_is_one_line(command: str) -> None:
    assert f"Kafka at {CLOSED} d" in complaint(kifiya(*command.split(), KAFKA_BOOTSTRAP=CLOSED))


@pytest.mark.parametrize("command", NEED_KAFKA)
def test_a_bootstrap_list_that_is_none_is_named(command: str) -> None:
    assert "KAFKA_BOOTSTRAP must be host:port pairs" in complaint(kifiya(*command.split(), KAFKA_BOOTSTRAP="kafka"))


def test_status_of_a_gateway_whose_kafka_is_away_is_what_answers_and_one_line() -> None:
    """As a process: here pytest would take what libraries log."""
    away = {"KAFKA_BOOTSTRAP": CLOSED, "INGRESS_URL": f"http://{CLOSED}", "KIFIYA_STATE": "/nonexistent/state.json"}
    command = [sys.executable, "-m", "ops.cli.main", "status"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | away)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"kifiya: Kafka at {CLOSED} does not answer (KafkaConnectionError): is it running?"
    ]
