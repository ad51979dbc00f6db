"""``kifiya dead-letters``: what waits for a person, why, and how to put it back."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ops.cli import table
from ops.cli.ask import ask
from ops.cli.replay import replay
from ops.cli.state import Running, fail, need
from ops.cli.status import Output

if TYPE_CHECKING:
    from ops.letters import Found

READ_S: Final = 600.0
SHOWN_BYTES: Final = 64

app = typer.Typer(no_args_is_help=True, help="List, read and replay what waits for a person.")
app.command()(replay)


@app.command("list")
def list_(
    *,
    reason: Annotated[str | None, typer.Option(help="Only letters with this reason.")] = None,
    stage: Annotated[
        str | None, typer.Option(help="Only letters of this stage: intake, dispatch, delay, sink.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
    every: Annotated[
        bool, typer.Option("--all", help="Also letters that a newer one of their payment overtook.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """List the dead letters on the topic, oldest first, each origin once.

    The state is PostgreSQL's, where it is known: a payment in REVIEW waits, a final one does not any more.
    """
    running = need("kafka")
    found = _letters(running, originals=False)
    if not every:
        from ops.letters import current  # noqa: PLC0415 - heavy, and needed here only

        found = current(found)
    found = [item for item in found if reason in {None, item.letter.reason} and stage in {None, item.letter.stage}]
    shown = found[-limit:]
    states = _states(running, [item.of_payment for item in shown if item.of_payment])
    rows = [{**_summary(item), "state": states.get(item.of_payment or "", "")} for item in shown]
    if output is Output.JSON:
        typer.echo(json.dumps(rows))
        return
    columns = ("origin", "at", "stage", "reason", "payment_id", "attempts", "state", "detail")
    table.show(columns, [[row[name] or "-" for name in columns] for row in rows])
    typer.echo(f"{len(found)} dead letters" + (f", the newest {len(shown)} shown" if len(shown) < len(found) else ""))


@app.command()
def show(
    origin: Annotated[str, typer.Argument(help="topic/partition/offset, as `kifiya dead-letters list` prints it.")],
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Show one letter: why and where it was given up, its headers, and the original, decoded where it can be."""
    running = need("kafka")
    found = next((item for item in _letters(running) if item.origin == origin), None)
    if found is None:
        fail(f"no dead letter has the origin {origin}: see `kifiya dead-letters list --all`")
    from ops import readable  # noqa: PLC0415 - needed here only

    original = found.letter.original
    said = readable.value(original)
    if "undecodable" in said:
        said["hex"] = original[:SHOWN_BYTES].hex()
    states = _states(running, [found.of_payment] if found.of_payment else [])
    every = {
        **_summary(found),
        "state": states.get(found.of_payment or "", ""),
        "letter": f"payments.dead-letter/{found.at}",
        "original_bytes": found.letter.original_size,
        "original_kept": len(original),
        "original_sha256": found.letter.original_sha256,
        "headers": {readable.printable(name): readable.text(value) for name, value in found.headers.items()},
        "original": said,
    }
    if output is Output.JSON:
        typer.echo(json.dumps(every))
        return
    width = max(map(len, every))
    for name, value in every.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"{name:{width}}  {readable.printable(text) or '-'}")


def _letters(running: Running, *, originals: bool = True) -> list[Found]:
    async def work() -> list[Found]:
        from ops.kafka.reading import UnknownTopic  # noqa: PLC0415 - heavy, and needed here only
        from ops.letters import read  # noqa: PLC0415

        try:
            return await read(running.settings, originals=originals)
        except UnknownTopic as error:
            fail(f"the broker has no topic {error}: `kifiya topics create` makes it")

    return ask(running, work, timeout_s=READ_S)


def _states(running: Running, ids: list[str]) -> dict[str, str]:
    """States by payment as far as PostgreSQL is known and answers; a list needs no more than that."""
    from ops.states import Unknown, of  # noqa: PLC0415 - heavy, and needed here only

    try:
        return asyncio.run(of(running.postgres, ids))
    except Unknown as error:
        typer.echo(f"kifiya: the payments' states are not known: {error}", err=True)
        return {}


def _summary(found: Found) -> dict[str, Any]:
    letter = found.letter
    at = dt.datetime.fromtimestamp(letter.at_ms / 1000, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "origin": found.origin,
        "at": at,
        "stage": letter.stage,
        "reason": letter.reason,
        "payment_id": letter.payment_id or "",
        "merchant_id": letter.merchant_id or "",
        "lane": letter.lane or "",
        "attempts": letter.attempts,
        "detail": letter.detail,
    }
