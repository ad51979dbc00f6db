"""``kifiya chaos``: attacks on the promises, each run reproducible."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.state import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ops.chaos.case import Case
    from ops.chaos.ledger import Ledger
    from ops.chaos.run import Outcome

app = typer.Typer(no_args_is_help=True, help="Attack the promises, and see whether they hold.")

FALLBACK = "A lane that moves between Redis and PostgreSQL, every link cut at times (ops/chaos/FALLBACK.md)."


@app.command()
def simulate(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="How many lives.")] = 10_000,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    fallback: Annotated[bool, typer.Option("--fallback", help=FALLBACK)] = False,
) -> None:
    """Live many lives of the gateway in virtual time: crashes, pauses, lost tails, flushes, a moody provider.

    Real decisions over a fake Kafka, Redis and provider. Exit status 1, with the seeds, where a promise was broken.
    """
    from ops.chaos.sim import many  # noqa: PLC0415 - heavy, and needed here only

    again = "kifiya chaos replay --fallback" if fallback else "kifiya chaos replay"
    began, lives, calls, virtual_s = time.monotonic(), 0, 0, 0.0
    broken: list[int] = []
    for told in many.every(first, seeds, jobs, of=many.one_of_fallback if fallback else many.one):
        lives, calls, virtual_s = lives + 1, calls + told.calls, virtual_s + told.seconds
        if told.violations:
            broken.append(told.seed)
            said = "; ".join(f"{each.promise}: {each.subject} {each.detail}" for each in told.violations[:3])
            typer.echo(f"seed {told.seed} breaks {said}\n  replay it: {again} {told.seed}")
    typer.echo(
        f"{lives:,} lives, {calls:,} provider calls, {virtual_s / 3600:,.1f} virtual hours in "
        f"{time.monotonic() - began:.0f} s: {len(broken)} broken"
    )
    if broken:
        raise typer.Exit(1)


@app.command()
def replay(
    seed: Annotated[int, typer.Argument(min=0, help="A seed that `kifiya chaos simulate` named.")],
    *,
    fallback: Annotated[bool, typer.Option("--fallback", help=FALLBACK)] = False,
) -> None:
    """Live one life again and tell what happened in it, moment by moment."""
    from ops.chaos.sim import many  # noqa: PLC0415 - heavy, and needed here only

    life = many.quiet_fallback(seed) if fallback else many.quiet(seed)
    for line in life.trace:
        typer.echo(line)
    for each in life.violations:
        typer.echo(f"BROKEN {each.promise}: {each.subject} {each.detail}")
    if life.violations:
        fail(f"seed {seed} breaks {len(life.violations)} promises")
    typer.echo(f"seed {seed} keeps the promises in {life.seconds:.0f} virtual seconds")


@app.command("failpoints")
def list_failpoints() -> None:
    """List the crash points that stand between the writes of the roles; ``FAILPOINTS=NAME=kill`` arms one in a role."""
    from ops.chaos.points import POINTS  # noqa: PLC0415 - each command loads its own

    for point in POINTS:
        typer.echo(f"{point.role:<9} {point.name}")
    typer.echo(f"{len({point.name for point in POINTS})} failpoints, {len(POINTS)} with the roles that share one")


@app.command("run")
def run_cases(
    names: Annotated[list[str], typer.Argument(help="Cases: names that `kifiya chaos cases` lists, or files.")],
    *,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than the case's own.")] = None,
    duration: Annotated[float | None, typer.Option(min=1, help="Seconds of load, instead of the case's own.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep all that a run leaves under this folder.")] = None,
) -> None:
    """Attack a gateway of real processes, then judge it: load, faults, seed and duration are the case's.

    Ends with the ledger of all cases. Exit status 1, with the command that repeats it, where a promise was broken;
    what that run has left stays.
    """
    from dataclasses import replace  # noqa: PLC0415
    from functools import partial  # noqa: PLC0415

    from ops.chaos import case as cases  # noqa: PLC0415 - heavy, and needed here only
    from ops.chaos import run  # noqa: PLC0415
    from ops.chaos.ledger import Ledger  # noqa: PLC0415

    try:
        chosen = [cases.load(name) for name in names]
    except cases.BadCase as error:
        fail(str(error))
    ledger = Ledger()
    for case in chosen:
        changed = replace(
            case, seed=case.seed if seed is None else seed, duration_s=case.duration_s if duration is None else duration
        )
        again = f"kifiya chaos run {case.name} --seed {changed.seed} --duration {changed.duration_s:g}"
        _one(changed, partial(run.run, changed, say=typer.echo), ledger, keep, again)
    _tell(ledger)


@app.command()
def matrix(
    *,
    action: Annotated[str, typer.Option(help="What happens at each point: kill, raise or pause.")] = "kill",
    only: Annotated[str, typer.Option(help="Only points whose name, with its role, begins so.")] = "",
    case: Annotated[str, typer.Option(help="The case whose load leads to the points.")] = "failpoints",
    keep: Annotated[Path | None, typer.Option(help="Keep all that a run leaves under this folder.")] = None,
) -> None:
    """Have every role die, fail or wait at each of its failpoints, under load. A point that is never reached fails."""
    from ops.chaos import case as cases  # noqa: PLC0415 - heavy, and needed here only
    from ops.chaos import run  # noqa: PLC0415
    from ops.chaos.ledger import Ledger  # noqa: PLC0415
    from ops.chaos.matrix import ACTIONS  # noqa: PLC0415
    from ops.chaos.points import POINTS  # noqa: PLC0415

    if action not in ACTIONS:
        fail(f"--action: must be one of {', '.join(ACTIONS)}")
    if not any(point.label.startswith(only) for point in POINTS):
        fail(f"--only: no failpoint begins with {only}; `kifiya chaos failpoints` lists them")
    try:
        chosen = cases.load(case)
    except cases.BadCase as error:
        fail(str(error))
    ledger = Ledger()
    again = f"kifiya chaos matrix --action {action}" + (f" --only {only}" if only else "")

    def work(folder: Path) -> Coroutine[Any, Any, Outcome]:
        return run.run_matrix(chosen, folder, typer.echo, action, lambda point: point.label.startswith(only))

    _one(chosen, work, ledger, keep, again)
    _tell(ledger)


def _one(
    case: Case, work: Callable[[Path], Coroutine[Any, Any, Outcome]], ledger: Ledger, keep: Path | None, again: str
) -> None:
    """Run one case in a folder of its own, which stays where it is to be kept or a promise was broken."""
    import asyncio  # noqa: PLC0415
    import logging  # noqa: PLC0415
    import shutil  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    from ops.chaos import history  # noqa: PLC0415 - heavy, and needed here only
    from ops.local.child import StartError  # noqa: PLC0415

    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"kifiya-chaos-{case.name}-{case.seed}-", dir=keep))
    for name in ("aiokafka", "asyncio"):  # the clients are attacked, too, and complain aloud of every try
        logging.getLogger(name).setLevel(logging.CRITICAL)
    began = time.monotonic()
    try:
        found, violations = asyncio.run(work(folder))
    except StartError as error:
        fail(f"{case.name}: {error}")
    ledger.add(case.name, found, history.read(sorted(folder.glob("faults*.jsonl"))), violations)
    typer.echo(f"{case.name}: {len(violations)} broken, {time.monotonic() - began:.0f} s")
    if violations:
        typer.echo(f"  repeat it: {again}; what it left is in {folder}")
    elif keep is None:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(ledger: Ledger) -> None:
    typer.echo("")
    for line in ledger.lines():
        typer.echo(line)
    if not ledger.holds:
        raise typer.Exit(1)


@app.command("cases")
def list_cases() -> None:
    """List the cases that come with the product."""
    from ops.chaos import case as cases  # noqa: PLC0415

    for name in cases.names():
        typer.echo(f"{name:<20} {cases.load(name).purpose}")
