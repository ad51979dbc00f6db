"""Intake beside plain Faust on the same unique commands: an agent that does nothing, and the naive pattern."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ops.bench import payments, peers
from ops.bench.figures import Aim, Figure, between, ratios, span
from ops.bench.proc import processor_s
from ops.bench.rig import Bench, NotMeasured, declare, environment, kafka_of, process, role, until
from ops.local.stack import Stack, running
from schemas import topics

NAME: Final = "intake"
DONE_S: Final = 120.0
COMMIT_S: Final = 30.0
REPEATED_MAX: Final = 1000
"""Delivery is at least once: a poll of 500 that a recovery's seek overtakes comes twice, and is forwarded twice."""
_OUT: Final = topics.queue_topics("simulator")


@dataclass(frozen=True, slots=True)
class _Taken:
    """What one reader took for the commands of one run."""

    rate: float
    processor_us: float


async def measure(bench: Bench) -> list[Figure]:
    """In each run so many new commands, then one reader after the other."""
    count = bench.size(20_000, 4_000)
    found: dict[str, list[_Taken]] = {"intake": [], "nothing": [], "naive": []}
    async with running(bench.kind, parts=frozenset({"kafka"}), overrides=False) as stack:
        kafka = kafka_of(stack)
        await declare(kafka, *(topic for run in range(bench.runs) for topic in peers.topics_of(run)))
        for run in range(bench.runs):
            await payments.fill(kafka, payments.command_of, f"run-{run}", count, f"{peers.IN}.{run}")
            names = list(found)
            for name in names[run % 3 :] + names[: run % 3]:
                with TemporaryDirectory(prefix="kifiya-bench-") as folder:
                    if name == "intake":
                        taken = await _ours(bench, stack, Path(folder), count)
                    else:
                        taken = await _peer(bench, stack, Path(folder), count, name, run)
                found[name].append(taken)
            bench.say(f"intake run {run + 1}: " + ", ".join(f"{name} {found[name][-1].rate:,.0f}/s" for name in names))
    return _figures(count, found)


def _figures(count: int, found: dict[str, list[_Taken]]) -> list[Figure]:
    rates = {name: [one.rate for one in taken] for name, taken in found.items()}
    processor = {name: [one.processor_us for one in taken] for name, taken in found.items()}
    ours, nothing, naive = "intake", "nothing", "naive"
    return [
        Figure(NAME, f"unique commands, {count:,} waiting", rates[ours], "/s"),
        Figure(NAME, "  a Faust agent that does nothing", rates[nothing], "/s"),
        Figure(NAME, "  the naive pattern, which loses", rates[naive], "/s"),
        Figure(NAME, "ours of nothing", ratios(rates[ours], rates[nothing]), "x", Aim(0.7, at_least=True)),
        Figure(NAME, "ours of the naive pattern", ratios(rates[ours], rates[naive]), "x"),
        Figure(NAME, "processor time of one command", processor[ours], "us"),
        Figure(NAME, "  of nothing", processor[nothing], "us"),
        Figure(NAME, "  of the naive pattern", processor[naive], "us"),
    ]


async def _ours(bench: Bench, stack: Stack, folder: Path, count: int) -> _Taken:
    """The role's own process; the times are those of the tasks that it wrote, so watching it costs it nothing."""
    kafka = kafka_of(stack)
    begins = await payments.ends(kafka, *_OUT)
    samples: list[tuple[float, float]] = []
    async with role(bench, stack, folder, "streams", "intake") as found:
        sampling = asyncio.create_task(_sample(found.pid, samples))

        async def all_written() -> bool:
            now = await payments.ends(kafka, *_OUT)
            return sum(now.values()) - sum(begins.values()) >= count

        async def committed() -> bool:
            return await payments.caught_up(kafka, topics.INTAKE_APP, topics.COMMANDS)

        try:
            await until(all_written, f"{count} tasks from intake", DONE_S, 0.5)
            await until(committed, "the last commit of intake", COMMIT_S, 0.5)
        finally:
            sampling.cancel()
    stops = await payments.ends(kafka, *_OUT)
    written = sum(stops.values()) - sum(begins.values())
    if not count <= written <= count + REPEATED_MAX:
        raise NotMeasured(f"intake wrote {written} tasks for {count} commands")
    took = span(await payments.stamps(kafka, begins, stops))
    processor_used_s = between(samples, took.end) - between(samples, took.begin)
    unique = count / written
    return _Taken(took.rate * unique, 1e6 * processor_used_s / (took.events * unique))


async def _sample(pid: int, samples: list[tuple[float, float]]) -> None:
    """Note the processor time used so far, by the wall clock that stamps records; until cancelled."""
    while True:
        samples.append((time.time(), processor_s(pid)))
        await asyncio.sleep(0.05)


async def _peer(  # noqa: PLR0913, PLR0917 - one measurement
    bench: Bench, stack: Stack, folder: Path, count: int, name: str, run: int
) -> _Taken:
    """A peer's own process on a copy of the same records; it says itself what it took."""
    report = folder / "report.json"
    arguments = ["ops.bench.peers", name, "--run", str(run), "--count", str(count), "--report", str(report)]

    async def reported() -> bool:
        return report.exists()

    async def started() -> bool:
        return True

    async with process(bench, f"peer {name}", arguments, environment(stack, folder), started):
        await until(reported, f"{count} records read by the {name} peer", DONE_S, 0.25)
    return _Taken(**json.loads(report.read_text()))
