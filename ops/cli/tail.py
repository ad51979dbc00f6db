"""``kifiya topics tail``: what a topic holds or receives, decoded."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ops.cli.ask import TIMEOUT_S, ask
from ops.cli.state import Running, fail, need
from ops.cli.status import Output

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiokafka import ConsumerRecord

LAST: Final = 10


def tail(
    topic: Annotated[str, typer.Argument(help="The topic's name; `kifiya topics list` tells them.")],
    *,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the first record.")] = False,
    most: Annotated[
        int | None,
        typer.Option("--max", min=1, help="Stop after so many records; without --follow, 10 is the default."),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Go on with what arrives, until Ctrl-C.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json (one object a line).")] = Output.TEXT,
) -> None:
    """Print a topic's last records; with --from-beginning all, with --follow those that arrive.

    Avro is decoded by its schema id, commands in JSON as they are; what is neither is shown by size and first bytes.
    """
    running = need("kafka")

    async def work() -> None:
        from ops.kafka.reading import UnknownTopic, arriving, present  # noqa: PLC0415 - heavy, and needed here only

        try:
            if follow:
                await _print(arriving(running.settings, topic, from_beginning=from_beginning), most, output)
            elif from_beginning:
                await _print(present(running.settings, topic), most, output)
            else:
                for record in await _last(running, topic, most or LAST):
                    _line(record, output)
        except UnknownTopic:
            fail(f"the broker has no topic {topic!r}: see `kifiya topics list`")

    ask(running, work, timeout_s=None if follow or from_beginning else TIMEOUT_S)


async def _print(records: AsyncGenerator[ConsumerRecord, None], most: int | None, output: Output) -> None:
    count = 0
    async with aclosing(records) as found:
        async for record in found:
            _line(record, output)
            count += 1
            if count == most:
                return


async def _last(running: Running, topic: str, count: int) -> list[ConsumerRecord]:
    """The youngest records over all partitions, by time; those of one partition in their order."""
    from ops.kafka.reading import present  # noqa: PLC0415 - heavy, and needed here only

    async with aclosing(present(running.settings, topic, last=count)) as found:
        records = [record async for record in found]
    records.sort(key=lambda record: record.timestamp)
    return records[-count:]


def _line(record: ConsumerRecord, output: Output) -> None:
    from ops import readable  # noqa: PLC0415 - needed here only

    said = readable.value(record.value, changelog=record.topic.endswith("-changelog"))
    key, at = readable.text(record.key), _instant(record.timestamp)
    if output is Output.JSON:
        headers = {readable.printable(name): readable.text(value) for name, value in record.headers}
        typer.echo(
            json.dumps(
                {
                    "topic": record.topic,
                    "partition": record.partition,
                    "offset": record.offset,
                    "timestamp": at,
                    "key": key,
                    "headers": headers,
                    "value": said,
                }
            )
        )
        return
    typer.echo(f"{record.partition}/{record.offset} {at} {key if key is not None else '-'} {_short(said)}")


def _short(said: dict[str, Any]) -> str:
    from ops import readable  # noqa: PLC0415 - needed here only

    rest = dict(said)
    name = rest.pop("record", "")
    text = json.dumps(rest.get("json", rest), ensure_ascii=False, separators=(",", ":"))
    return readable.printable(f"{name} {text}".strip())


def _instant(timestamp_ms: int) -> str:
    try:
        return (
            dt.datetime.fromtimestamp(timestamp_ms / 1000, dt.UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
    except (OverflowError, ValueError, OSError):  # a producer may name any moment
        return str(timestamp_ms)
