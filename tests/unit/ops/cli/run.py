"""The command line as a person meets it: arguments and environment in, output and exit status out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from typer.testing import CliRunner, Result

from ops.cli.main import app

NOWHERE = dict.fromkeys(
    (
        "KAFKA_BOOTSTRAP",
        "KAFKA_DIALECT",
        "REDIS_URL",
        "DATABASE_URL",
        "INGRESS_URL",
        "SIMULATOR_URL",
        "LANES",
        "RETRY_TIERS",
        "COMMAND_PARTITIONS",
        "LANE_PARTITIONS",
    )
)
CLOSED = "127.0.0.1:1"


def kifiya(*arguments: str, **environment: str) -> Result:
    """Run a command, in a thread of its own: it brings its own event loop. No gateway is known but those named."""
    env = {**NOWHERE, "KIFIYA_STATE": "/nonexistent/state.json", **environment}
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(CliRunner().invoke, app, list(arguments), env=env).result()


def complaint(result: Result) -> str:
    """The one line on stderr of a command that failed, without the program's name."""
    assert result.exit_code != 0
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    (line,) = result.stderr.splitlines()
    assert line.startswith("kifiya: ")
    return line.removeprefix("kifiya: ")
