"""``kifiya demo``: a fresh gateway, 24 records, and a verdict in one line."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.state import fail
from ops.cli.up import StackKind

if TYPE_CHECKING:
    from ops.demo import Verdict

WITHIN_S = 45.0


def demo(
    stack: Annotated[StackKind, typer.Option(help="Where Kafka, Redis and PostgreSQL come from.")] = StackKind.EMBEDDED,
) -> None:
    """Send 24 records through a fresh gateway at 2 calls a second, and check what came of them.

    The verdict is held against the provider's own log and PostgreSQL. Exit status 0 only if every promise was kept.
    """
    from ops.local.child import StartError  # noqa: PLC0415 - heavy, and needed here only
    from ops.local.state import state_folder  # noqa: PLC0415
    from ops.telemetry import configure_logging  # noqa: PLC0415

    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "demo.log"
    log.unlink(missing_ok=True)
    log.touch()
    configure_logging("demo", "warning")
    os.environ.setdefault("KIFIYA_STATE", str(folder / "demo-state.json"))
    try:
        found = asyncio.run(_run(stack, log))
    except StartError as error:
        fail(f"{error} (log: {log})")
    except KeyboardInterrupt:
        fail("stopped", 130)
    for fault in found.faults:
        typer.echo(f"  FAULT {fault}")
    if not found.holds:
        typer.echo(f"  the promises do not hold; what the roles wrote is in {log}")
    sys.stdout.write(found.line() + "\n")
    raise typer.Exit(0 if found.holds else 1)


async def _run(stack: StackKind, log: object) -> Verdict:
    from pathlib import Path  # noqa: PLC0415

    from ops.demo import Demo, wait  # noqa: PLC0415
    from ops.fair_share import with_lane  # noqa: PLC0415
    from ops.local.gateway import gateway  # noqa: PLC0415

    began = time.monotonic()
    os.environ["LANES"] = with_lane(os.environ.get("LANES", ""))
    typer.echo("starting a broker, Redis, PostgreSQL, six roles and two simulated providers ...")
    async with gateway(stack.value, log=Path(str(log))) as found:
        running = found.describe()
        typer.echo(f"ready after {time.monotonic() - began:.1f} s: API {running.ingress}, Kafka {running.kafka}")
        typer.echo(f"merchant {running.merchant_id}, API key {running.api_key}")
        demo = Demo(running, next(iter(found.lanes.values())).limit)
        await demo.send()
        return await wait(demo, running, WITHIN_S, typer.echo)
