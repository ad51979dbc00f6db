"""``kifiya rebuild``: PostgreSQL's projection anew, out of the topics."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Final

import typer

from ops.cli import verify
from ops.cli.ask import ask
from ops.cli.state import fail, need
from ops.cli.status import Output

READ_S: Final = 4 * 3600.0
TELL_S: Final = 1.0


def rebuild(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be done.")] = False,
    discard_older: Annotated[
        bool, typer.Option("--discard-older", help="Also where that loses payments which the topics no longer hold.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json, of the parity.")] = Output.TEXT,
) -> None:
    """Drop the projection in PostgreSQL, write it anew out of the topics, then hold both against each other.

    The gateway may go on: the sink and the readers wait only while the new rows replace the old ones.
    """
    running = need("kafka", "postgres")
    if not yes:
        fail("this replaces all rows of payments, payment_events, dead_letters: say --yes to do it", 2)

    async def work() -> None:
        import asyncpg  # noqa: PLC0415 - heavy, and needed here only

        from ops.kafka.reading import UnknownTopic  # noqa: PLC0415
        from ops.verify.rebuild import Older  # noqa: PLC0415
        from ops.verify.rebuild import rebuild as replay  # noqa: PLC0415

        try:
            done = await replay(running.settings, running.postgres, discard=discard_older, tell=_Progress())
        except Older as error:
            fail(f"PostgreSQL holds {error} payments that the topics do not hold any more: nothing was changed")
        except UnknownTopic as error:
            fail(f"the broker has no topic {error}: `kifiya topics create` makes it")
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            fail(f"PostgreSQL does not do it ({type(error).__name__}): nothing was changed")
        typer.echo(
            f"{done.records:,} records replayed: {done.payments:,} payments, {done.events:,} events, "
            f"{done.dead_letters:,} dead letters",
            err=output is Output.JSON,
        )

    ask(running, work, timeout_s=READ_S)
    verify.show(verify.measure(running), output)


class _Progress:
    """Says now and then how far it is, to a person who watches."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def __call__(self, count: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._at >= TELL_S:
            self._at = time.monotonic()
            typer.echo(f"{count:,} records", err=True)
