"""``kifiya dead-letters replay``: payments back on their way, audited, never past the ledger."""

from __future__ import annotations

import json
import os
import pwd
import time
import uuid
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ops.cli.ask import ask
from ops.cli.state import Running, fail, need, seals
from ops.cli.status import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.letters import Found
    from ops.replay import Audit, Plan

    Pick = Callable[[list[Found], dict[str, Found]], list[Found]]

CHUNK: Final = 200
LONGEST_NAME: Final = 64
TIMEOUT_S: Final = 900.0


def replay(  # noqa: PLR0913 - each is an option
    origins: Annotated[list[str] | None, typer.Argument(help="topic/partition/offset of each letter.")] = None,
    *,
    payment_id: Annotated[str | None, typer.Option(help="Replay the letter that this payment waits for.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Replay all letters with the --reason.")] = False,
    reason: Annotated[str | None, typer.Option(help="With --all: the letters' reason.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="More than ten at once: you mean it.")] = False,
    approved_by: Annotated[str, typer.Option(help="More than ten at once: the second person who agreed.")] = "",
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Put payments back under their own id, with a new replay id, through the lane's limit.

    Nobody is charged twice: the ledger drops what is final or was replayed already, and the provider is asked first
    wherever a call may have landed. Commands go to intake again, which decides anew: a conflict stays a conflict, and
    a merchant that KAFKA_MERCHANTS does not name stays refused. With COMMAND_SECRET set, old seals are renewed.
    """
    from ops.replay import Audit  # noqa: PLC0415 - heavy, and needed here only

    if (bool(origins), payment_id is not None, every).count(True) != 1:
        fail("say what to replay: origins, or --payment-id, or --all with --reason")
    if every != (reason is not None):
        fail("--all and --reason go together")
    running = need("kafka")
    audit = Audit(str(uuid.uuid4()), _user(), _second(approved_by))

    async def work() -> Plan:
        return await _replay(running, audit, _wanted(origins or [], payment_id, reason), dry_run=dry_run, yes=yes)

    done = ask(running, work, timeout_s=TIMEOUT_S)
    _tell(done, audit.replay_id, output, dry_run=dry_run)
    if done.refused and not every:
        raise typer.Exit(1)


def _wanted(origins: list[str], payment_id: str | None, reason: str | None) -> Pick:
    def pick(found: list[Found], newest: dict[str, Found]) -> list[Found]:
        if payment_id is not None:
            if payment_id not in newest:
                fail(f"no dead letter makes payment {payment_id} wait: see `kifiya dead-letters list`")
            return [newest[payment_id]]
        if reason is not None:
            from ops.letters import current  # noqa: PLC0415 - heavy, and needed here only

            return [item for item in current(found) if item.letter.reason == reason]
        by_origin = {item.origin: item for item in found}
        for origin in origins:
            if origin not in by_origin:
                fail(f"no dead letter has the origin {origin}: see `kifiya dead-letters list --all`")
        return [by_origin[origin] for origin in dict.fromkeys(origins)]

    return pick


async def _replay(running: Running, audit: Audit, pick: Pick, *, dry_run: bool, yes: bool) -> Plan:
    from ops import letters  # noqa: PLC0415 - heavy, and needed here only
    from ops.kafka.clients import Publisher, PublishError  # noqa: PLC0415
    from ops.kafka.reading import UnknownTopic, partition_counts  # noqa: PLC0415
    from ops.replay import BULK, is_final, plan  # noqa: PLC0415

    try:
        found = await letters.read(running.settings)
    except UnknownTopic as error:
        fail(f"the broker has no topic {error}: `kifiya topics create` makes it")
    newest = letters.standing(found)
    wanted = pick(found, newest)
    states = await _states(running, [item.of_payment for item in wanted if item.of_payment])
    ours, now_ms = seals(running), time.time_ns() // 1_000_000
    todo = plan(
        wanted,
        newest=newest,
        final={payment_id for payment_id, state in states.items() if is_final(state)},
        existing=await partition_counts(running.settings),
        audit=audit,
        renew=lambda value, old: old if ours is None else ours.renewed(value, old, now_ms),
    )
    if dry_run or not todo.sends:
        return todo
    if len(todo.sends) > BULK and not (yes and audit.approved_by):
        fail(
            f"{len(todo.sends)} letters are more than {BULK}: look at --dry-run, then add --yes and "
            "--approved-by with the name of a second person who agrees"
        )
    messages = [message for _, message in todo.sends]
    async with Publisher(running.settings) as publisher:
        for start in range(0, len(messages), CHUNK):
            try:
                await publisher.publish(messages[start : start + CHUNK])
            except PublishError as error:
                fail(f"Kafka took {start} of {len(messages)} for certain ({error}): replay again, twice does no harm")
    return todo


async def _states(running: Running, ids: list[str]) -> dict[str, str]:
    from ops.states import Unknown, of  # noqa: PLC0415 - heavy, and needed here only

    try:
        return await of(running.postgres, ids)
    except Unknown as error:
        typer.echo(f"kifiya: PostgreSQL does not say which are final ({error}); the ledger will", err=True)
        return {}


def _tell(done: Plan, replay_id: str, output: Output, *, dry_run: bool) -> None:
    from schemas import topics  # noqa: PLC0415 - needed here only

    sends = [
        {
            "origin": found.origin,
            "payment_id": found.letter.payment_id,
            "reason": found.letter.reason,
            "to": message.topic,
        }
        for found, message in done.sends
    ]
    refused = [{"origin": found.origin, "why": why} for found, why in done.refused]
    final = [{"origin": found.origin, "payment_id": found.of_payment} for found in done.final]
    if output is Output.JSON:
        said = {"replay_id": replay_id, "dry_run": dry_run, "replayed": sends, "final": final, "refused": refused}
        typer.echo(json.dumps(said))
        return
    for item in sends:
        typer.echo(
            f"{item['origin']} -> {item['to']}" + (f" payment {item['payment_id']}" if item["payment_id"] else "")
        )
    for skipped in final:
        typer.echo(f"{skipped['origin']} skipped: payment {skipped['payment_id']} is final")
    for found, why in done.refused:
        typer.echo(f"kifiya: {found.origin} refused: {why}", err=True)
    if any(item["to"] == topics.COMMANDS for item in sends):
        typer.echo("intake decides anew on commands: what was refused for what it says is refused again")
    typer.echo(
        f"{len(sends)} {'would be replayed' if dry_run else 'replayed'}, {len(final)} skipped as final, "
        f"{len(refused)} refused" + ("" if dry_run or not sends else f"; replay id {replay_id}")
    )


def _user() -> str:
    """Who runs this, by the system's word and not the environment's."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def _second(name: str) -> str:
    name = name.strip()
    if name and (not name.isprintable() or len(name) > LONGEST_NAME):
        fail(f"--approved-by must be a name of at most {LONGEST_NAME} characters")
    if name.casefold() == _user().casefold():
        fail("--approved-by must name a second person, not yourself")
    return name
