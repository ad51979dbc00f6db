"""``kifiya chaos``: attacks on the promises, each run reproducible."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ops.cli.state import fail

app = typer.Typer(no_args_is_help=True, help="Attack the promises, and see whether they hold.")


@app.command()
def simulate(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="How many lives.")] = 10_000,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
) -> None:
    """Live many lives of the gateway in virtual time: crashes, pauses, lost tails, flushes, a moody provider.

    Real decisions over a fake Kafka, Redis and provider. Exit status 1, with the seeds, where a promise was broken.
    """
    from ops.chaos.sim.many import every  # noqa: PLC0415 - heavy, and needed here only

    began, lives, calls, virtual_s = time.monotonic(), 0, 0, 0.0
    broken: list[int] = []
    for told in every(first, seeds, jobs):
        lives, calls, virtual_s = lives + 1, calls + told.calls, virtual_s + told.seconds
        if told.violations:
            broken.append(told.seed)
            said = "; ".join(f"{each.promise}: {each.subject} {each.detail}" for each in told.violations[:3])
            typer.echo(f"seed {told.seed} breaks {said}\n  replay it: kifiya chaos replay {told.seed}")
    typer.echo(
        f"{lives:,} lives, {calls:,} provider calls, {virtual_s / 3600:,.1f} virtual hours in "
        f"{time.monotonic() - began:.0f} s: {len(broken)} broken"
    )
    if broken:
        raise typer.Exit(1)


@app.command()
def replay(seed: Annotated[int, typer.Argument(min=0, help="A seed that `kifiya chaos simulate` named.")]) -> None:
    """Live one life again and tell what happened in it, moment by moment."""
    from ops.chaos.sim.many import quiet  # noqa: PLC0415 - heavy, and needed here only

    life = quiet(seed)
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
