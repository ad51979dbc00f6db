"""``kifiya status``: what runs, where, and what waits."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.state import fail, need

if TYPE_CHECKING:
    from ops.local.state import Running


class Output(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


def status(output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT) -> None:
    """What runs, where, and what waits. With -o json: what `kifiya up --json` printed, with the current pids."""
    running = need("ingress")
    if output is Output.JSON:
        typer.echo(json.dumps(asdict(running)))
        return
    _roles(running)
    if running.kafka:
        _backlog(running)


def _roles(running: Running) -> None:
    from rich.console import Console  # noqa: PLC0415 - heavy, and needed here only
    from rich.table import Table  # noqa: PLC0415

    table = Table("role", "pid", "ready", "metrics", box=None)
    for name in sorted(running.pids | running.admin):
        url = running.admin.get(name, "")
        said = _ready(url) if url else "-"
        table.add_row(name, str(running.pids.get(name, "-")), said, f"{url}/metrics" if url else "-")
    Console(highlight=False).print(table)


def _ready(url: str) -> str:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2):  # noqa: S310 - our own http address
            return "yes"
    except urllib.error.HTTPError as error:
        try:
            missing = json.loads(error.read(4096)).get("missing") or ["?"]
        except ValueError:
            missing = ["?"]
        return "no: " + ", ".join(map(str, missing))
    except (OSError, ValueError):
        return "does not answer"


def _backlog(running: Running) -> None:
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - heavy, and needed here only
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from ops.cli.ask import hush  # noqa: PLC0415
    from ops.kafka import backlog  # noqa: PLC0415
    from schemas import topics  # noqa: PLC0415
    from schemas.lanes import parse_lanes  # noqa: PLC0415
    from streams.queues import drained_s, fresh_queues  # noqa: PLC0415

    hush()
    try:
        lanes = parse_lanes(running.lanes or '{"simulator": {}}')
        tiers = [name for name in (running.retry_tiers or ",".join(topics.DEFAULT_TIERS)).split(",") if name]
        found = asyncio.run(backlog.backlog(running.settings, backlog.groups(lanes, tiers)))
    except (KafkaError, OSError, TimeoutError) as error:
        fail(f"Kafka at {running.kafka} does not answer ({type(error).__name__}): is it running?")
    except ValueError as error:
        fail(str(error))
    table = Table("topic", "waiting", "drained in", box=None)
    for name, waiting in found.items():
        eta = "-"
        for lane in lanes.values():
            if name in (queues := fresh_queues(lane.name)) and waiting:
                all_of_lane = sum(found.get(queue, 0) for queue in queues)
                eta = _span(drained_s(waiting, all_of_lane, queues[name].level, lane.limit * 1000 / lane.window_ms))
        table.add_row(name, str(waiting), eta)
    Console(highlight=False).print(table)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
