"""One lane's dispatch as a process: settings in, Faust agents over the dispatcher, until SIGTERM.

Agents on the lane's queues of fresh tasks, on its due and its cancel topic, one loop per topic-partition; their topics
and the ledger share one partition count, so one worker holds all that concerns a payment.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from prometheus_client import Counter

from ops import trace
from ops.failpoints import Failpoint
from ops.kafka import agents, faust_app
from ops.kafka.clients import Message, Publisher, PublishError, RecordRefused, partition_for
from ops.kafka.tables import create_table
from ops.telemetry import admin_server, logger
from schemas import codec, pulse, topics
from schemas.lanes import Lane
from schemas.records import PaymentTask
from streams import dead_letter, payment, queues
from streams.breaker import Breaker
from streams.dispatch import Dispatcher, wall_ms
from streams.lead import Lead
from streams.limiter import RedisLimiter, SwitchingLimiter, open_limiter, open_switching
from streams.limiter.control import KafkaControl
from streams.locks import Locks
from streams.origin import Origin
from streams.outbox import Outbox
from streams.providers import open_provider
from streams.pulse import Heart
from streams.settings import StreamSettings
from streams.spread import Spread
from streams.stores.archive import open_archive
from streams.stores.ledger import TableLedger
from streams.throttle import Turnstile

POISON = Counter("kifiya_dispatch_poison", "Records of the lane's topics that could not be handled.", ["lane"])

FORGOTTEN = Counter("kifiya_ledger_forgotten", "Final payments that the ledger has forgotten.")

AFTER_POISON: Final = Failpoint("dispatch.after-poison")

SWEEP_S: Final = 600.0

Handle = Callable[[PaymentTask, Origin], Awaitable[None]]


async def run(settings: StreamSettings, *, lane: str) -> None:
    """Run dispatch of one lane until SIGTERM or SIGINT. Raises SystemExit(1) where a handoff could not be kept."""
    spec = settings.lane_table()[lane]
    window_s = (spec.window_ms + spec.guard_ms) / 1000
    app = faust_app.create_app(topics.dispatch_app(lane), settings.kafka, datadir=settings.data_dir)
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(Publisher(settings.kafka, linger_ms=0))
        store = create_table(app, topics.LEDGER_TABLE, settings.lane_partitions, publisher, winner=payment.winner)
        limiter = _limiter(settings, spec, publisher)
        await stack.enter_async_context(limiter)
        provider = await stack.enter_async_context(open_provider(spec))
        lifetime_s = provider.key_lifetime_s
        ledger = TableLedger(store, app.writing)
        dispatcher = Dispatcher(
            lane=lane,
            tiers=settings.tiers(),
            rules=payment.Rules(
                max_attempts=settings.max_attempts,
                key_lifetime_ms=None if lifetime_s is None else int(lifetime_s * 1000),
            ),
            ledger=ledger,
            outbox=Outbox(lane, trace.carrying(publisher.publish), wall_ms),
            limiter=limiter,
            provider=provider,
            breaker=Breaker(time.monotonic),
            turnstile=Turnstile(),
            lead=Lead(window_s),
            spread=Spread(window_s, spec.limit),
            archive=await stack.enter_async_context(open_archive(settings.database_url)),
            holds=app.lease.holds,
        )
        heart = Heart(
            settings.redis_url,
            pulse.dispatch(lane),
            breaker_open=lambda: dispatcher.breaker.is_open,
            limiter=lambda: limiter.healthy,
        )
        most = queues.in_hand(spec.limit, spec.window_ms, settings.lane_partitions)
        _bind(app, settings.lane_partitions, publisher, dispatcher, heart, most)
        await stack.enter_async_context(
            admin_server(settings.admin_host, settings.admin_port, lambda: _health(app, limiter, settings))
        )
        logger().info("dispatch starts", action="start", lane=lane)
        sweeping = _sweep(ledger, dispatcher.locks, settings.ledger_window_s)
        async with faust_app.beside(app, limiter.watch(), sweeping, heart.beat()):
            await faust_app.serve(app)


async def _sweep(ledger: TableLedger, locks: Locks, window_s: float) -> None:
    """Forget what ended longer ago than the window, now and then; not before what was uncommitted has come again."""
    while True:
        await asyncio.sleep(min(SWEEP_S, window_s))
        try:
            count = await ledger.forget(wall_ms() - int(window_s * 1000), locks.busy)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next sweep tries again
            logger().warning("the sweep failed", action="sweep-failed", error=type(error).__name__)
        else:
            FORGOTTEN.inc(count)


def _limiter(settings: StreamSettings, lane: Lane, publisher: Publisher) -> RedisLimiter | SwitchingLimiter:
    if settings.fallback == "off":
        return open_limiter(settings.redis_url, lane)
    return open_switching(
        settings.redis_url,
        settings.database_url,
        lane,
        KafkaControl(settings.kafka, lane.name, publisher.publish),
        leaves_redis=settings.fallback == "postgres",
    )


def _health(app: faust_app.App, limiter: Any, settings: StreamSettings) -> dict[str, Any]:
    missing = app.missing
    if not limiter.healthy:
        missing.append("redis" if settings.fallback == "off" else "limiter")
    return {"ready": not missing, "missing": missing}


def _bind(  # noqa: PLR0913, PLR0917 - what a lane's agents work with
    app: faust_app.App, partitions: int, publisher: Publisher, dispatcher: Dispatcher, heart: Heart, most: int
) -> None:
    """One agent for each topic; ``most`` records of a partition of creates are in hand at once, of cancels one."""
    lane = dispatcher.lane
    creates = queues.fresh_queues(lane) | {topics.due_topic(lane): queues.DUE}
    handles: dict[str, Handle] = {
        name: functools.partial(dispatcher.create, queue=queue) for name, queue in creates.items()
    }
    for name, handle in (handles | {topics.cancel_topic(lane): dispatcher.cancel}).items():
        told = functools.partial(_told, heart=heart, handle=handle)
        one = functools.partial(_one, lane=lane, partitions=partitions, publisher=publisher, handle=told)
        agent = agents.in_order(app, one, most=most if name in creates else 1)
        app.agent(faust_app.topic(app, name), name=name, isolated_partitions=True)(agent)


async def _told(task: PaymentTask, origin: Origin, *, heart: Heart, handle: Handle) -> None:
    """Handle a task, and let the pulse tell how far that is."""
    with heart.handling(origin.topic, origin.partition, origin.offset, accepted_at_ms=task.accepted_at_ms):
        await handle(task, origin)


async def _one(message: Any, *, lane: str, partitions: int, publisher: Publisher, handle: Handle) -> None:
    """Handle one record; a record that cannot be handled becomes a dead letter. Raises PublishError to crash."""
    value: bytes = message.value or b""
    origin = Origin(message.topic, message.partition, message.offset, value)
    trace.CURRENT.set(trace.of(message.headers))
    payment_id = merchant_id = None
    reason, detail = "undecodable", ""
    try:
        task = codec.decode(value, PaymentTask)
        payment_id, merchant_id = task.payment_id, task.merchant_id
        key = task.payment_id.encode()
        if message.key != key or task.lane != lane or partition_for(key, partitions) != message.partition:
            # nor is the ledger's
            reason, detail = "not-home", "the record's key, partition or lane is not its payment's"
        else:
            await handle(task, origin)
            return
    except codec.DecodeError as error:
        detail = str(error)
    except RecordRefused as error:
        reason, detail = "refused-by-broker", str(error)
    except PublishError:
        raise
    except Exception as error:  # noqa: BLE001 - a defect of ours must not stall the partition, nor lose the record
        reason, detail = "internal-error", type(error).__name__
        logger().exception("a task could not be handled", action="task-failed", payment_id=payment_id, lane=lane)
    POISON.labels(lane).inc()
    letter = dead_letter.letter(
        reason=reason,
        detail=detail,
        stage="dispatch",
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        original=value,
        payment_id=payment_id,
        merchant_id=merchant_id,
        lane=lane,
        at_ms=wall_ms(),
    )
    messages: list[Message] = [dead_letter.message(letter)]
    await trace.carrying(publisher.publish)(messages)
    await AFTER_POISON.reach()
