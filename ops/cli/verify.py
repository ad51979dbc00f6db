"""``kifiya verify``: the promises, held against what topics and PostgreSQL say; exit status 1 where one is broken."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ops.cli.ask import ask
from ops.cli.state import Running, fail, need
from ops.cli.status import Output

if TYPE_CHECKING:
    from ops.verify import limiter as replayed
    from ops.verify.parity import Report

READ_S: Final = 1800.0
SHOWN: Final = 20

app = typer.Typer(no_args_is_help=True, help="Hold the promises against what the topics and PostgreSQL say.")


@app.command()
def limiter(
    lane: Annotated[str | None, typer.Option(help="The lane; without it, every lane.")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json (one object a line).")] = Output.TEXT,
) -> None:
    """Replay every provider call in payments.events: the most in any window, and the share of the limit that was used.

    The moments are those at which requests were written, on the limiter's clock.
    """
    running = need("kafka")
    lanes = _lanes(running, lane)

    async def work() -> list[replayed.Report]:
        from ops.kafka.reading import UnknownTopic, present  # noqa: PLC0415 - heavy, and needed here only
        from ops.verify.limiter import Calls  # noqa: PLC0415
        from schemas import codec, topics  # noqa: PLC0415
        from schemas.records import PaymentEvent  # noqa: PLC0415

        calls = {name: Calls(name, limit, window_ms) for name, (limit, window_ms) in lanes.items()}
        try:
            async with aclosing(present(running.settings, topics.EVENTS)) as found:
                async for record in found:
                    try:
                        event = codec.decode(record.value, PaymentEvent)
                    except codec.DecodeError:
                        continue  # no event: the sink has dead-lettered it
                    if event.lane in calls:
                        calls[event.lane].add(event)
        except UnknownTopic as error:
            fail(f"the broker has no topic {error}: `kifiya topics create` makes it")
        return [each.report() for each in calls.values()]

    reports = ask(running, work, timeout_s=READ_S)
    for report in reports:
        said = json.dumps({**asdict(report), "holds": report.holds}) if output is Output.JSON else report.line()
        typer.echo(said)
    if not all(report.holds for report in reports):
        raise typer.Exit(1)


@app.command()
def parity(
    within: Annotated[float, typer.Option(min=0, help="Seconds the sink has to write what the topic holds.")] = 60.0,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Hold PostgreSQL against the fold of payments.events, row by row, and both against payments.results."""
    running = need("kafka", "postgres")
    show(measure(running, within), output)


def measure(running: Running, within_s: float = 60.0) -> Report:
    """The parity as it stands; ends the command with one line where it cannot be known."""

    async def work() -> Report:
        import asyncpg  # noqa: PLC0415 - heavy, and needed here only

        from ops.kafka.reading import UnknownTopic  # noqa: PLC0415
        from ops.verify.projection import Behind, check  # noqa: PLC0415

        try:
            return await check(running.settings, running.postgres, within_s=within_s)
        except UnknownTopic as error:
            fail(f"the broker has no topic {error}: `kifiya topics create` makes it")
        except Behind as error:
            fail(str(error))
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            fail(f"PostgreSQL does not answer as it should ({type(error).__name__}): `kifiya doctor` looks at it")

    return ask(running, work, timeout_s=READ_S)


def show(report: Report, output: Output) -> None:
    """Print a parity; exit status 1 where it is not whole."""
    if output is Output.JSON:
        typer.echo(json.dumps({**asdict(report), "holds": report.holds}))
    else:
        for payment_id, said in list(report.differences.items())[:SHOWN]:
            typer.echo(f"{payment_id} {said}")
        if len(report.differences) > SHOWN:
            typer.echo(f"... and {len(report.differences) - SHOWN:,} more")
        typer.echo(report.line())
    if not report.holds:
        raise typer.Exit(1)


def _lanes(running: Running, lane: str | None) -> dict[str, tuple[int, int]]:
    """Limit and window of the lanes that are asked for."""
    from schemas.lanes import parse_lanes  # noqa: PLC0415 - needed here only

    try:
        known = parse_lanes(running.lanes or '{"simulator": {}}')
    except ValueError as error:
        fail(str(error))
    if lane is not None and lane not in known:
        fail(f"no lane {lane!r}: there are {', '.join(known)}")
    return {name: (found.limit, found.window_ms) for name, found in known.items() if lane in {None, name}}
