"""Asking Kafka from the command line: bounded in time, quiet, and one line that says what to do where it is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from ops.cli.state import Running, fail

T = TypeVar("T")

CONNECT_S: Final = 3.0
TIMEOUT_S: Final = 60.0


def ask(running: Running, work: Callable[[], Coroutine[Any, Any, T]], *, timeout_s: float | None = TIMEOUT_S) -> T:
    """What ``work`` answers. Where Kafka does not, the command ends with one line; None waits as long as it takes."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - heavy, and needed here only

    from ops.kafka.clients import PublishError  # noqa: PLC0415

    hush()
    try:
        return asyncio.run(_bounded(running.kafka, work, timeout_s))
    except TimeoutError:
        fail(f"Kafka at {running.kafka} did not answer in time: is it running?")
    except PublishError as error:
        fail(f"Kafka at {running.kafka} did not take the record ({_why(error)}): nothing says that it is stored")
    except BrokenPipeError:
        raise  # the reader of our output is gone; typer ends quietly
    except (KafkaError, OSError) as error:
        fail(f"Kafka at {running.kafka} does not answer ({_why(error)}): is it running?")
    except KeyboardInterrupt:
        fail("stopped", 130)


async def _bounded(bootstrap: str, work: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None) -> T:
    async with asyncio.timeout(timeout_s):
        await reach(bootstrap)
        return await work()


async def reach(bootstrap: str) -> None:
    """Return once some broker of the list takes connections: the client itself would try and complain for long.

    Raises OSError; a list that is none ends the command.
    """
    failure: OSError | None = None
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit():
            fail(f"KAFKA_BOOTSTRAP must be host:port pairs separated by commas, not {bootstrap!r}")
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError as error:
            failure = error
            continue
        writer.close()
        return
    raise failure or OSError("no address")


def hush() -> None:
    """Keep the clients' own complaints off the terminal: what they complain about is said once, by us."""
    for name in ("aiokafka", "asyncio", "faust", "mode"):
        found = logging.getLogger(name)
        if not found.handlers:
            found.addHandler(logging.NullHandler())


def _why(error: Exception) -> str:
    """The error in a few words, on one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"[:200] if said else type(error).__name__
