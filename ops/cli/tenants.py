"""``kifiya merchants`` and ``kifiya keys``: who may call the gateway, in which mode and for what."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from ops.cli.state import Running, fail, need
from ops.cli.status import Output
from ops.cli.table import show
from schemas.api_key import PEPPER_LEAST, SANDBOX_PEPPER, SCOPES, Mode

if TYPE_CHECKING:
    import asyncpg

    from ops.merchants import Made

T = TypeVar("T")

merchants = typer.Typer(no_args_is_help=True, help="Who may be paid.")
keys = typer.Typer(no_args_is_help=True, help="API keys of merchants.")

_SPAN: Final = re.compile(r"(\d{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_OutputOption = Annotated[Output, typer.Option("--output", "-o", help="text or json (one object a line).")]


@merchants.command("add")
def add(
    merchant: Annotated[str, typer.Argument(help="Its id: A-Z a-z 0-9 _ -, up to 64 characters.")],
    *,
    mode: Annotated[Mode, typer.Option(help="For ever: test reaches the sandbox only, live all but it.")] = Mode.TEST,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    rate_limit: Annotated[
        str | None, typer.Option(help="Such as 100/second; default: the gateway's RATE_LIMIT.")
    ] = None,
) -> None:
    """Add a merchant, or change its name and rate limit. Over Kafka it is refused until KAFKA_MERCHANTS names it."""
    from ops.merchants import add as put  # noqa: PLC0415 - heavy, and needed here only

    _do(lambda db: put(db, merchant, mode, name=name, rate_limit=rate_limit))
    typer.echo(f"{merchant} ({mode})")


@merchants.command("list")
def list_merchants(output: _OutputOption = Output.TEXT) -> None:
    """Merchants, and how many keys of each work."""
    from ops.merchants import listed  # noqa: PLC0415 - heavy, and needed here only

    names = ("merchant_id", "mode", "name", "rate_limit", "created_at", "keys")
    _show(names, _do(listed), output)


@keys.command("create")
def create(
    merchant: Annotated[str, typer.Argument(help="Whose key it is.")],
    *,
    mode: Annotated[Mode | None, typer.Option(help="Must be the merchant's; default: that.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated: {', '.join(SCOPES)}. Default: the first two.")
    ] = None,
    label: Annotated[str, typer.Option(help="For people.")] = "",
    output: _OutputOption = Output.TEXT,
) -> None:
    """Make a key, and print it: it is not shown again."""
    from ops.merchants import create_key  # noqa: PLC0415 - heavy, and needed here only

    pepper = _pepper()
    _tell(_do(lambda db: create_key(db, pepper, merchant, scope or SCOPES[:2], mode=mode, label=label)), output)


@keys.command("rotate")
def rotate(
    key_id: Annotated[
        str, typer.Argument(help="The key's id, as `kifiya keys list` shows it; the key itself will do.")
    ],
    *,
    overlap: Annotated[str, typer.Option(help="How long the old key goes on working: 0s, 15m, 24h, 7d.")] = "24h",
    output: _OutputOption = Output.TEXT,
) -> None:
    """Make a key with the rights of this one, which then ends after the overlap."""
    from ops.merchants import rotate_key  # noqa: PLC0415 - heavy, and needed here only

    span = _SPAN.fullmatch(overlap)
    if span is None:
        fail("--overlap must be a number with s, m, h or d, such as 24h", 2)
    pepper, overlap_s = _pepper(), int(span[1]) * _SECONDS[span[2]]
    _tell(_do(lambda db: rotate_key(db, pepper, _id(key_id), overlap_s=overlap_s)), output)


@keys.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id; the key itself will do.")]) -> None:
    """Refuse a key from now on: at once, at the latest 5 seconds later where PostgreSQL answers the ingress."""
    from ops.merchants import revoke_key  # noqa: PLC0415 - heavy, and needed here only

    worked = _do(lambda db: revoke_key(db, _id(key_id)))
    typer.echo(f"{_id(key_id)} {'is revoked' if worked else 'was revoked before'}")


@keys.command("list")
def list_keys(
    merchant: Annotated[str | None, typer.Argument(help="Only this merchant's.")] = None,
    *,
    output: _OutputOption = Output.TEXT,
) -> None:
    """Keys, without what is secret of them; revoked ones too."""
    from ops.merchants import keys as listed  # noqa: PLC0415 - heavy, and needed here only

    names = ("key_id", "merchant_id", "mode", "scopes", "label", "created_at", "revoked_at")
    _show(names, _do(lambda db: listed(db, merchant)), output)


def _id(given: str) -> str:
    """The id in a whole key too, so that nobody has to cut it out."""
    return given.partition(".")[0].rpartition("_")[2]


def _pepper() -> bytes:
    """What the ingress signs keys with: named in the environment, or the sandbox's under `kifiya up`."""
    found = os.environ.get("API_KEY_PEPPER") or (SANDBOX_PEPPER if need("postgres").supervisor else "")
    if len(found) < PEPPER_LEAST:
        fail(f"API_KEY_PEPPER must be set to the ingress's, at least {PEPPER_LEAST} characters")
    return found.encode()


def _tell(made: Made, output: Output) -> None:
    if output is Output.JSON:
        said = {"merchant_id": made.merchant_id, "mode": made.mode, "scopes": made.scopes}
        typer.echo(json.dumps({"key_id": made.key_id, "api_key": made.key, **said}))
        return
    typer.echo(made.key)
    typer.echo(f"{made.merchant_id}, {made.mode}, {' '.join(made.scopes)}; it is not shown again", err=True)


def _show(names: tuple[str, ...], rows: list[asyncpg.Record], output: Output) -> None:
    if output is Output.JSON:
        for row in rows:
            typer.echo(json.dumps({name: row[name] for name in names}, default=lambda value: value.isoformat()))
        return
    show(names, [[_cell(row[name]) for name in names] for row in rows])


def _cell(value: object) -> object:
    return " ".join(value) if isinstance(value, list) else "-" if value in {None, ""} else value


def _do(work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
    """What the work answers; the command ends with one line where it cannot be done."""
    import asyncpg  # noqa: PLC0415 - heavy, and needed here only

    from ops.merchants import Refused, connected  # noqa: PLC0415

    running: Running = need("postgres")

    async def ask() -> T:
        async with connected(running.postgres) as db:
            return await work(db)

    try:
        return asyncio.run(ask())
    except Refused as error:
        fail(str(error))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidParameterValueError):
        fail("PostgreSQL has no tables of this gateway yet: `python -m sinks migrate` makes them")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        fail(f"PostgreSQL does not do it ({type(error).__name__}{': ' if said else ''}{said})")
