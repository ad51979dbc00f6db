"""``kifiya chaos``: attacks on the promises, each run reproducible."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.state import fail

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ops.chaos.attempt import Attempt
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
def run_cases(  # noqa: PLR0913 - the options of the command
    names: Annotated[list[str], typer.Argument(help="Cases: names that `kifiya chaos cases` lists, or files.")],
    *,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than the case's own.")] = None,
    duration: Annotated[
        float | None, typer.Option(min=1, max=3600, help="Seconds of load, instead of the case's own.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many cases at once, each with a gateway of its own.")] = 1,
    alone: Annotated[int, typer.Option(min=0, help="So many of the first cases run before, one at a time.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Keep all that a run leaves under this folder.")] = None,
) -> None:
    """Attack a gateway of real processes, then judge it: load, faults, seed and duration are the case's.

    Ends with the ledger of all cases that ran. Exit status 1, with the command that repeats it, where a promise was
    broken or a case could not run; what that run has left stays.
    """
    from dataclasses import replace  # noqa: PLC0415

    from ops.chaos import case as cases  # noqa: PLC0415 - heavy, and needed here only
    from ops.chaos.attempt import Attempt, at_once  # noqa: PLC0415

    chosen = []
    try:
        for name in names:
            case = cases.load(name)
            chosen.append(
                replace(
                    case,
                    seed=case.seed if seed is None else seed,
                    duration_s=case.duration_s if duration is None else duration,
                )
            )
            cases.check(chosen[-1])
    except cases.BadCase as error:
        fail(str(error))
    found: dict[int, Attempt] = {}
    for place, each in at_once(chosen, keep, jobs, alone=alone):
        case = each.case
        again = f"kifiya chaos run {shlex.quote(names[place])} --seed {case.seed} --duration {case.duration_s:g}"
        if isinstance(each, Attempt):
            _verdict(each, again)
            found[place] = each
        else:
            typer.echo(f"{case.name}: could not run: {each.why}\n  repeat it: {again}")
    if found:
        _tell([each for _, each in sorted(found.items())])
    if len(found) < len(chosen):
        raise typer.Exit(1)


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
    from ops.chaos.attempt import attempt, say  # noqa: PLC0415
    from ops.chaos.matrix import ACTIONS  # noqa: PLC0415
    from ops.chaos.points import POINTS  # noqa: PLC0415
    from ops.local.child import StartError  # noqa: PLC0415

    if action not in ACTIONS:
        fail(f"--action: must be one of {', '.join(ACTIONS)}")
    if not any(point.label.startswith(only) for point in POINTS):
        fail(f"--only: no failpoint begins with {only}; `kifiya chaos failpoints` lists them")
    try:
        chosen = cases.load(case)
    except cases.BadCase as error:
        fail(str(error))
    again = f"kifiya chaos matrix --action {action}" + (f" --only {only}" if only else "")

    def work(folder: Path) -> Coroutine[Any, Any, Outcome]:
        return run.run_matrix(chosen, folder, say, action, lambda point: point.label.startswith(only))

    try:
        found = attempt(chosen, work, keep)
    except StartError as error:
        fail(f"{chosen.name}: {error}")
    _verdict(found, again)
    _tell([found])


def _verdict(found: Attempt, again: str) -> None:
    typer.echo(f"{found.case.name}: {len(found.violations)} broken, {found.seconds:.0f} s")
    if found.violations:
        typer.echo(f"  repeat it: {again}; what it left is in {found.folder}")


def _tell(found: list[Attempt]) -> None:
    from ops.chaos.ledger import Ledger  # noqa: PLC0415 - heavy, and needed here only

    ledger = Ledger()
    for each in found:
        ledger.add(each.case.name, each.evidence, each.faults, each.violations)
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
