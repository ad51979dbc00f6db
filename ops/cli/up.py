"""``kifiya up``: the whole gateway on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.state import fail

if TYPE_CHECKING:
    from ops.local.state import Running


class StackKind(StrEnum):
    """Where Kafka, Redis and PostgreSQL come from."""

    EMBEDDED = "embedded"
    APACHE = "apache"
    EXTERNAL = "external"


def up(
    stack: Annotated[
        StackKind, typer.Option(help="embedded: wheels; apache: Apache Kafka by Maven; external: URLs of yours.")
    ] = StackKind.EMBEDDED,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line once everything is ready; logs go to stderr.")
    ] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Keep PostgreSQL's data here over restarts.")] = None,
    kafka_nodes: Annotated[int, typer.Option(min=1, max=3, help="Brokers of the apache stack: 1 or 3.")] = 1,
) -> None:
    """Run the whole gateway until Ctrl-C: the stack, every role, and a simulated provider.

    KAFKA_BOOTSTRAP, REDIS_URL, DATABASE_URL and SIMULATOR_URL replace the part they name, which is then not started.
    """
    from ops.local.child import StartError  # noqa: PLC0415 - heavy, and needed here only
    from ops.telemetry import configure_logging  # noqa: PLC0415

    configure_logging("supervisor")
    try:
        asyncio.run(_run(stack, as_json=as_json, data_dir=data_dir, kafka_nodes=kafka_nodes))
    except StartError as error:
        fail(str(error))


async def _run(stack: StackKind, *, as_json: bool, data_dir: Path | None, kafka_nodes: int) -> None:
    from ops.local import state  # noqa: PLC0415
    from ops.local.gateway import gateway  # noqa: PLC0415

    ours = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ours.cancel if ours is not None else loop.stop)
    supervisor = 0
    try:
        async with gateway(
            stack.value, data_dir=data_dir, kafka_nodes=kafka_nodes, changed=lambda found: state.write(found.describe())
        ) as found:
            described = found.describe()
            supervisor = described.supervisor
            state.write(described)
            _tell(described, as_json=as_json)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass
    finally:
        if supervisor:
            state.clear(supervisor)


def _tell(running: Running, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(running)))
        return
    typer.echo(
        f"\nThe gateway is up. Ctrl-C stops it.\n\n"
        f"  API         {running.ingress}/v1/payments\n"
        f"  API docs    {running.ingress}/docs\n"
        f"  schemas     {running.ingress}/registry/subjects\n"
        f"  Kafka       {running.kafka}\n"
        f"  PostgreSQL  {running.postgres}\n"
        f"  Redis       {running.redis}\n"
        f"  provider    {running.simulator} (simulated)\n"
        f"  merchant    {running.merchant_id}\n"
        f"  API key     {running.api_key}\n\n"
        f"Try:\n\n"
        f"  curl -i {running.ingress}/v1/payments -H 'Authorization: Bearer {running.api_key}' \\\n"
        f"    -H 'Idempotency-Key: order-1001' \\\n"
        f"    -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"amount": "12.50", "currency": "USD",'
        f' "payment_method": "pm_approve"}}\'\n\n'
        f"  kifiya send --key order-1002 --amount 12.50 --currency USD --payment-method pm_approve\n"
        f"  kifiya status\n"
    )
