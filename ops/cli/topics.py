"""``kifiya topics``: make the gateway's topics, look at them, and look into them."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ops.cli import declared, table
from ops.cli.ask import ask, hush, reach
from ops.cli.state import Running, fail, need
from ops.cli.status import Output
from ops.cli.tail import tail

if TYPE_CHECKING:
    from schemas.topics import Topic

AGAIN_S: Final = 0.5
CALL_S: Final = 15.0
SAFE_REPLICAS: Final = 3
OURS: Final = ("payments.", "kifiya.")

app = typer.Typer(no_args_is_help=True, help="Create, list, read and trim the gateway's topics.")
app.command()(tail)


@app.command()
def create(
    replication: Annotated[
        int | None, typer.Option(min=1, max=9, help="Copies of each record; default: 3, or what the cluster has.")
    ] = None,
    command_partitions: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Default: COMMAND_PARTITIONS, else 12.")
    ] = None,
    lane_partitions: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Default: LANE_PARTITIONS, else 8.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds to wait for the broker.")] = 60.0,
) -> None:
    """Create the topics that are missing, for LANES and RETRY_TIERS; waits for the broker. Safe to run again.

    A topic with another number of partitions than declared is an error and is left as it is.
    """
    running = need("kafka")
    wanted = declared.topics_of(running, commands=command_partitions, lane=lane_partitions)
    hush()
    try:
        made = asyncio.run(_create(running, wanted, replication, timeout))
    except KeyboardInterrupt:
        fail("stopped", 130)
    typer.echo(f"{len(made)} topics created, {len(wanted) - len(made)} were there" if made else "all topics are there")


async def _create(running: Running, wanted: list[Topic], replication: int | None, timeout_s: float) -> list[str]:
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - heavy, and needed here only

    from ops.kafka.admin import TopicsDiffer, create_topics  # noqa: PLC0415

    end = time.monotonic() + timeout_s
    while True:
        left_s = max(1.0, end - time.monotonic())
        try:
            async with asyncio.timeout(left_s):
                await reach(running.kafka)
                copies = replication or await _copies(running)
                return await create_topics(running.settings, wanted, replication=copies, timeout_s=min(left_s, CALL_S))
        except TopicsDiffer as error:
            fail(str(error))
        except (KafkaError, OSError) as error:  # the broker starts, or not enough brokers are up yet
            failure = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")[:300]
        if time.monotonic() + AGAIN_S >= end:
            fail(
                f"Kafka at {running.kafka} did not create the topics within {timeout_s:g} s ({failure}): is it running?"
            )
        await asyncio.sleep(AGAIN_S)


async def _copies(running: Running) -> int:
    """Three where the cluster has as many brokers; never fewer than the bootstrap list says that it will have."""
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415 - heavy, and needed here only

    client = AIOKafkaAdminClient(bootstrap_servers=running.kafka, request_timeout_ms=int(CALL_S * 1000))
    try:
        await client.start()
        brokers = len((await client.describe_cluster())["brokers"])
    finally:
        await client.close()
    return min(SAFE_REPLICAS, max(brokers, len(running.kafka.split(","))))


@app.command("list")
def list_(
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """List the gateway's topics: partitions, records (offsets from the first to the last), purpose.

    Topics that are declared and not there are listed with no partitions: `kifiya topics create` makes them.
    """
    running = need("kafka")
    wanted = {topic.name: topic for topic in declared.topics_of(running)}

    async def work() -> list[dict[str, object]]:
        from ops.kafka.trim import extents  # noqa: PLC0415 - heavy, and needed here only

        found = await extents(running.settings, OURS)
        return [
            {
                "name": name,
                "partitions": len(found[name].ends) if name in found else 0,
                "records": found[name].records if name in found else 0,
                "ends": found[name].ends if name in found else {},
                "purpose": wanted[name].purpose if name in wanted else "",
            }
            for name in [*wanted, *(name for name in found if name not in wanted)]
        ]

    rows = ask(running, work)
    if output is Output.JSON:
        typer.echo(json.dumps(rows))
        return
    table.show(
        ("topic", "partitions", "records", "purpose"),
        [(row["name"], row["partitions"] or "missing", row["records"], row["purpose"] or "-") for row in rows],
    )


@app.command()
def trim(
    *,
    keep_commands_days: Annotated[
        float, typer.Option(min=0, max=3650, help="Keep commands this long after they were sent.")
    ] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, delete nothing.")] = False,
) -> None:
    """Delete from the work topics what is done: records below the committed offset of the group that works on them.

    Work topics keep everything for ever otherwise. Events, results and dead letters are never touched.
    """
    running = need("kafka")
    if running.kafka_dialect == "tansu" and not dry_run:
        fail("the embedded broker cannot delete records; it forgets them when it stops (--dry-run tells what is done)")
    names, tiers = list(declared.lanes(running)), declared.tiers(running)

    async def work() -> tuple[dict[str, int], dict[str, str]]:
        from ops.kafka.trim import delete, look  # noqa: PLC0415 - heavy, and needed here only

        found = await look(running.settings, names, tiers, keep_commands_s=keep_commands_days * 86_400)
        return found.by_topic(), {} if dry_run else await delete(running.settings, found.before)

    counts, refused = ask(running, work)
    for name, count in counts.items():
        typer.echo(f"{name}: {f'refused by the broker ({refused[name]})' if name in refused else f'{count} records'}")
    done = sum(count for name, count in counts.items() if name not in refused)
    typer.echo(f"{done} records {'would be deleted' if dry_run else 'deleted'}")
    raise typer.Exit(1 if refused else 0)
