"""``kifiya topics``: make the gateway's topics, look at them, and look into them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ops.cli import declared
from ops.cli.ask import hush, reach
from ops.cli.state import Running, fail, need

if TYPE_CHECKING:
    from schemas.topics import Topic

AGAIN_S: Final = 0.5
CALL_S: Final = 15.0
SAFE_REPLICAS: Final = 3

app = typer.Typer(no_args_is_help=True, help="Create, list, read and trim the gateway's topics.")


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
                return await create_topics(
                    running.settings, wanted, replication=copies, timeout_s=min(left_s, CALL_S)
                )
        except TopicsDiffer as error:
            fail(str(error))
        except (KafkaError, OSError) as error:  # the broker starts, or not enough brokers are up yet
            failure = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")[:300]
        if time.monotonic() + AGAIN_S >= end:
            fail(f"Kafka at {running.kafka} did not create the topics within {timeout_s:g} s ({failure}): is it running?")
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
