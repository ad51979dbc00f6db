"""The services under the gateway: what the environment names is used as it is, the rest is started here."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, cast

from ops.local import child, embedded
from ops.local.child import Child, StartError

Kind = Literal["embedded", "apache", "external"]
ALL: Final = frozenset({"kafka", "redis", "postgres"})
_OVERRIDES: Final = {"kafka": "KAFKA_BOOTSTRAP", "redis": "REDIS_URL", "postgres": "DATABASE_URL"}


@dataclass(slots=True)
class Stack:
    """Where the services are. ``processes`` holds those started here, by name; ``""`` is a part not asked for."""

    kafka_bootstrap: str = ""
    kafka_dialect: Literal["apache", "tansu"] = "apache"
    redis_url: str = ""
    database_url: str = ""
    processes: dict[str, Child] = field(default_factory=dict)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs here."""
        return {name: part.pid for name, part in self.processes.items() if part.pid is not None}


def external(parts: frozenset[str] = ALL) -> Stack:
    """The stack that the environment names."""
    dialect = os.environ.get("KAFKA_DIALECT", "apache")
    if dialect not in {"apache", "tansu"}:
        raise StartError("KAFKA_DIALECT must be apache or tansu")
    found = {part: os.environ.get(variable, "") for part, variable in _OVERRIDES.items()}
    return Stack(
        kafka_bootstrap=found["kafka"] if "kafka" in parts else "",
        kafka_dialect=cast("Literal['apache', 'tansu']", dialect),
        redis_url=found["redis"] if "redis" in parts else "",
        database_url=found["postgres"] if "postgres" in parts else "",
    )


@asynccontextmanager
async def running(
    kind: Kind = "embedded",
    *,
    data_dir: Path | None = None,
    kafka_nodes: int = 1,
    parts: frozenset[str] = ALL,
    overrides: bool = True,
) -> AsyncIterator[Stack]:
    """Have these parts running for the block. Raises StartError.

    ``overrides``: a part whose URL is in the environment is taken from there instead of being started.
    """
    stack = external(parts) if overrides or kind == "external" else Stack()
    wanted = {
        part
        for part, url in (
            ("kafka", stack.kafka_bootstrap),
            ("redis", stack.redis_url),
            ("postgres", stack.database_url),
        )
        if part in parts and not url
    }
    if kind == "external":
        if wanted:
            names = ", ".join(_OVERRIDES[part] for part in sorted(wanted))
            raise StartError(f"set {names}, or use --stack embedded, which starts what is missing")
        yield stack
        return
    folder = child.run_folder()
    try:
        await _start(stack, kind, wanted, folder, data_dir, kafka_nodes)
        yield stack
    finally:
        await asyncio.gather(*(part.stop() for part in stack.processes.values()))
        shutil.rmtree(folder, ignore_errors=True)


async def _start(  # noqa: PLR0913, PLR0917 - the choices of one call, passed on
    stack: Stack, kind: Kind, wanted: set[str], folder: Path, data_dir: Path | None, kafka_nodes: int
) -> None:
    async def kafka() -> None:
        if kind == "embedded":
            part, stack.kafka_bootstrap = embedded.tansu(folder)
            stack.kafka_dialect = "tansu"
            await _up(stack, part)
            return
        from ops.kafka import broker  # noqa: PLC0415 - only where it is asked for

        nodes, stack.kafka_bootstrap = await broker.prepare(folder, kafka_nodes)
        stack.kafka_dialect = "apache"
        await asyncio.gather(*(_up(stack, node) for node in nodes))

    async def redis() -> None:
        await start_redis(stack, folder)

    async def postgres() -> None:
        part, stack.database_url = await embedded.prepare_postgres(folder, data_dir)
        await _up(stack, part)

    starts = {"kafka": kafka, "redis": redis, "postgres": postgres}
    try:
        async with asyncio.TaskGroup() as group:
            for name in wanted:
                group.create_task(starts[name]())
    except ExceptionGroup as errors:
        raise _first(errors) from None


async def start_redis(stack: Stack, folder: Path, *, password: str = "", env: Mapping[str, str] | None = None) -> None:
    """Have a Valkey run as the stack's Redis. Raises StartError."""
    for tries_left in (2, 1, 0):
        part, stack.redis_url = embedded.valkey(folder, password=password, env=env)
        try:
            await _up(stack, part)
        except StartError as error:  # between the draw of a port and its use another took it
            if not tries_left or "in use" not in str(error):
                raise
        else:
            return


def _first(error: Exception) -> Exception:
    """The first error that is no group: a part may start its own parts side by side, too."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _up(stack: Stack, part: Child) -> None:
    stack.processes[part.name] = part
    part.spawn()
    await part.ready(60.0)
