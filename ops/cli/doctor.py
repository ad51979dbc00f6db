"""``kifiya doctor``: what is wrong on this machine or with the gateway, and how to mend it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli import declared
from ops.cli.ask import hush
from ops.cli.state import Running, fail, find
from ops.cli.status import Output

if TYPE_CHECKING:
    from ops.doctor import Finding


def doctor(output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT) -> None:
    """Check the machine and the gateway that runs, and say how to mend what is not well.

    Exit status 1 if something fails; a warning is about what not everybody needs.
    """
    from ops.doctor import Level, machine  # noqa: PLC0415 - heavy, and needed here only

    hush()
    try:
        findings = machine.check() + _gateway(find())
    except KeyboardInterrupt:
        fail("stopped", 130)
    if output is Output.JSON:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        from ops.readable import printable  # noqa: PLC0415 - needed here only

        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            mend = f" -> {finding.mend}" if finding.mend else ""
            typer.echo(printable(f"{finding.level:4}  {finding.name:{width}}  {finding.says}{mend}"))
    raise typer.Exit(1 if any(finding.level is Level.FAIL for finding in findings) else 0)


def _gateway(running: Running) -> list[Finding]:
    from ops.doctor import bad, services, warn  # noqa: PLC0415 - heavy, and needed here only

    if not any((running.kafka, running.redis, running.postgres, running.ingress)):
        return [warn("gateway", "no gateway is running: kifiya up", "or set KAFKA_BOOTSTRAP, REDIS_URL, DATABASE_URL")]
    try:
        topics = declared.read_topics(running)
    except ValueError as error:
        return [bad("settings", str(error), "correct it in the environment"), *asyncio.run(services.check(running, []))]
    return asyncio.run(services.check(running, topics))
