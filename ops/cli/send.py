"""``kifiya send``: payments and cancellations straight into Kafka, as any producer may send them."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ops.cli import declared
from ops.cli.ask import ask
from ops.cli.state import Running, fail, need, seals
from ops.cli.status import Output

if TYPE_CHECKING:
    from schemas.records import PaymentCommand
    from schemas.seal import Seals

MOST: Final = 100_000
CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Sent:
    """One command to send: its payment, and the record."""

    payment_id: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def send(  # noqa: PLR0913 - each is a field of a payment
    *,
    key: Annotated[str | None, typer.Option(help="Idempotency key; a new one where none is given.")] = None,
    amount: Annotated[str | None, typer.Option(help="Decimal, as in 12.50.")] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217 code, as in USD.")] = None,
    payment_method: Annotated[str | None, typer.Option(help="Token of the payment method, as in pm_approve.")] = None,
    merchant: Annotated[str | None, typer.Option(help="Merchant id; default: the running gateway's.")] = None,
    customer_id: Annotated[str | None, typer.Option(help="The merchant's name for its customer.")] = None,
    description: Annotated[str | None, typer.Option(help="Up to 500 characters.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; may be repeated.")] = None,
    lane: Annotated[str | None, typer.Option(help="Provider account; default: the gateway's first.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="RFC 3339: not to be sent to the provider later.")] = None,
    count: Annotated[int, typer.Option(min=1, max=MOST, help="So many payments, with keys KEY-1, KEY-2, ...")] = 1,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the payment of --payment-id, or of --key.")] = False,
    payment_id: Annotated[str | None, typer.Option(help="With --cancel: the payment.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Send JSON with a key of our own and no seal, as a stranger would.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json (one object a line).")] = Output.TEXT,
) -> None:
    """Send a payment to Kafka, and print its id and where its record stands (topic/partition/offset).

    The same key with the same fields is the same payment: sending twice charges once. Sealed as the ingress's commands
    are, where COMMAND_SECRET is set or `kifiya up` runs: else the merchant must be one of KAFKA_MERCHANTS.
    """
    running = need("kafka")
    given = {
        "amount": amount,
        "currency": currency,
        "payment_method": payment_method,
        "customer_id": customer_id,
        "description": description,
        "lane": lane,
        "expires_at": expires_at,
    }
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    shop = merchant if merchant is not None else running.merchant_id
    if cancel:
        if fields or metadata or count != 1:
            fail("--cancel takes --payment-id, or --key with --merchant, and nothing else", 2)
        bodies = [_cancel(shop, key, payment_id)]
    elif payment_id is not None:
        fail("--payment-id goes with --cancel: a payment's id follows from its merchant and key", 2)
    else:
        fields |= {"merchant_id": shop, "metadata": _pairs(metadata or [])}
        bodies = _creates(fields, key if key is not None else str(uuid.uuid4()), count)
    sealing = None if as_json else seals(running)
    commands = [_checked(running, body, sealing, as_json=as_json) for body in bodies]
    ask(running, lambda: _send(running, commands, output), timeout_s=60.0 + len(commands) / 100)


def _cancel(merchant: str, key: str | None, payment_id: str | None) -> dict[str, Any]:
    if payment_id is not None:
        return {"type": "cancel", "payment_id": payment_id}
    if key is None:
        fail("say what to cancel: --payment-id, or the --key of its payment", 2)
    return {"type": "cancel", "merchant_id": merchant, "idempotency_key": key}


def _creates(fields: dict[str, Any], key: str, count: int) -> list[dict[str, Any]]:
    keys = [key] if count == 1 else [f"{key}-{number}" for number in range(1, count + 1)]
    said = {name: value for name, value in fields.items() if value != {}}
    return [{"type": "create", "idempotency_key": each, **said} for each in keys]


def _checked(running: Running, body: dict[str, Any], sealing: Seals | None, *, as_json: bool) -> Sent:
    from schemas import codec, command  # noqa: PLC0415 - needed here only

    known = frozenset(declared.lanes(running)) if running.lanes else frozenset()
    try:
        asked: PaymentCommand = command.from_json(body, lanes=known, accepted_at_ms=time.time_ns() // 1_000_000)
    except command.InvalidCommand as error:
        fail(f"{_option(error.field)}: {error.detail}", 2)
    ours = asked.payment_id or ""
    if as_json:
        return Sent(ours, str(body.get("idempotency_key", ours)).encode(), json.dumps(body).encode(), [])
    value = codec.encode(asked)
    sealed = [] if sealing is None else [sealing.header(value, time.time_ns() // 1_000_000)]
    return Sent(ours, ours.encode(), value, sealed)


def _option(field: str) -> str:
    """The option that a field of the command comes from."""
    named = {"idempotency_key": "key", "merchant_id": "merchant"}
    head, _, rest = field.partition(".")
    return f"--{named.get(head, head).replace('_', '-')}" + (f" {rest}" if rest else "")


def _pairs(items: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            fail("--metadata: write KEY=VALUE", 2)
        if name in found:
            fail(f"--metadata: {name} is given twice", 2)
        found[name] = value
    return found


async def _send(running: Running, commands: list[Sent], output: Output) -> None:
    from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - heavy, and needed here only

    from ops.kafka.reading import partition_counts  # noqa: PLC0415
    from schemas import topics  # noqa: PLC0415

    if topics.COMMANDS not in await partition_counts(running.settings):
        fail(f"Kafka at {running.kafka} has no topic {topics.COMMANDS}: `kifiya topics create` makes it")
    producer = AIOKafkaProducer(
        bootstrap_servers=running.kafka,
        acks="all",
        enable_idempotence=running.kafka_dialect == "apache",
        request_timeout_ms=15_000,
    )
    try:
        await producer.start()
        for start in range(0, len(commands), CHUNK):
            chunk = commands[start : start + CHUNK]
            pending = [await producer.send(topics.COMMANDS, one.value, one.key, headers=one.headers) for one in chunk]
            for each, stored in zip(chunk, await asyncio.gather(*pending), strict=True):
                _tell(each, f"{stored.topic}/{stored.partition}/{stored.offset}", output)
    finally:
        await producer.stop()


def _tell(sent: Sent, at: str, output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps({"payment_id": sent.payment_id, "record": at}))
    else:
        typer.echo(f"{sent.payment_id} {at}")
