"""The ingress as an ASGI app: the one place where its parts meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from fastapi import FastAPI

from ingress import (
    asyncapi_page,
    batch,
    docs,
    events,
    health,
    lane_resources,
    openapi,
    payments,
    problem,
    registry,
    resources,
)
from ingress import outbox as outboxes
from ingress.acceptance import Acceptance
from ingress.batch import Batch
from ingress.catchup import Readers
from ingress.commands import Commands
from ingress.delivery import Delivery
from ingress.edge import Edge
from ingress.feed import Bounds, Feed
from ingress.finals import Finals, results_of
from ingress.front import Front
from ingress.gate import Gate
from ingress.idempotency import Keys
from ingress.keyring import Keyring
from ingress.listing import Lists
from ingress.lookout import Lookout
from ingress.outbox import Outbox
from ingress.queries import Payments
from ingress.queues import Queues
from ingress.rates import Rates
from ingress.relay import Relay
from ingress.resources import Resources
from ingress.security_headers import Cors
from ingress.settings import IngressSettings
from ingress.tail import Tail
from ingress.tenants import Reach, Tenants
from ingress.workers import Ward
from ops import failpoints
from ops.kafka.clients import Publisher
from schemas import pulse, topics
from schemas.lanes import Lane


def create_app(settings: IngressSettings) -> FastAPI:
    """The app; it connects when it starts, and starts without anything being there.

    Raises ValueError for lanes that cannot be read, and for failpoints that are not there.
    """
    lanes = settings.lane_table()
    # A claim outlives the wait for Kafka's ack and the outbox, so a key is never claimed twice for one delivery.
    keys = Keys(settings.redis_url, lease_s=settings.publish_timeout_s + 1.2, remember_s=settings.remember_s)
    stored = Payments(settings.database_url)
    lists = Lists(settings.database_url)
    finals = Finals(partial(results_of, settings.kafka))
    keyring = Keyring(settings.database_url)
    tenants = Tenants(keyring, settings.api_key_pepper.get_secret_value().encode(), grace_s=settings.api_key_grace_s)
    keyring.changed = tenants.forget
    rates = Rates(keys, settings.rate_limit)
    # No linger: creates come in ticks already.
    kafka = Commands(Publisher(settings.kafka, linger_ms=0, request_timeout_ms=5000), settings.seals())
    outbox = Outbox(settings.database_url, outboxes.Bounds(settings.outbox_max_rows, settings.outbox_max_bytes))
    relay = Relay(settings.database_url, kafka.publish_all, lambda: kafka.away)
    queues = _queues(settings, lanes)
    feed = Feed(Tail(settings.kafka), Readers(settings.kafka), kafka.ping)

    acceptance = Acceptance(
        keys, stored, Delivery(kafka.publish, outbox), queues,
        default_lane=next(iter(lanes)),
        publish_timeout_s=settings.publish_timeout_s,
        may_wait=lambda: relay.may_wait,
    )  # fmt: skip

    async def stores() -> None:
        await asyncio.gather(stored.ping(), keyring.ping())

    async def stand_in() -> None:
        await outbox.ping()
        relay.check_room(settings.outbox_max_rows)

    readiness = health.Readiness(
        needed={"kafka": kafka.ping},
        instead={"kafka": stand_in},
        wanted={"redis": keys.ping, "postgres": stores, "outbox": relay.drained},
    )
    failpoints.arm(settings.failpoints)
    gate = Gate(settings.in_flight_max)
    replay = payments.Replay(settings.idempotent_replay)
    app = assemble(
        acceptance, readiness, reach_of(lanes), gate, tenants,
        rates=rates, lists=lists, queues=queues, finals=finals, replay=replay, access_log=settings.access_log,
    )  # fmt: skip
    asyncapi_page.install(app, frozenset(lanes))
    bounds = Bounds(settings.event_streams_max, settings.event_streams_per_merchant)
    app.include_router(events.routes(events.Live(feed, bounds, tenants.again, settings.event_heartbeat_s)))

    def stopping() -> None:
        feed.stop()
        finals.stop()

    app.state.stopping = stopping
    if settings.origins:
        app.add_middleware(Cors, origins=settings.origins)
    connecting = (outbox, feed, rates, keys, stored, lists, finals, keyring)
    app.router.lifespan_context = lambda _: running(kafka, (relay, queues), connecting)
    return app


def _queues(settings: IngressSettings, lanes: dict[str, Lane]) -> Queues:
    ward = Ward(settings.redis_url, [pulse.INTAKE, *map(pulse.dispatch, lanes)])
    return Queues(lanes, Lookout(settings.kafka, {lane: topics.queue_topics(lane) for lane in lanes}, ward))


class Running(Protocol):
    """What works beside the requests."""

    async def run(self) -> None:
        """Work, until cancelled."""


class Closing(Protocol):
    """What connects when it is first asked for something."""

    async def close(self) -> None:
        """Close what is connected."""


@asynccontextmanager
async def running(kafka: Commands, beside: Iterable[Running], connecting: Iterable[Closing]) -> AsyncIterator[None]:
    """The producer and what works beside, for the block; the others are closed after it."""
    async with kafka:
        tasks = {asyncio.create_task(each.run()) for each in beside}
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for each in connecting:
                await each.close()


def reach_of(lanes: Mapping[str, Lane]) -> Reach:
    """Which of these lanes, the first being the default, a key in test or live mode reaches."""
    sandbox = frozenset(name for name, lane in lanes.items() if lane.sandbox)
    return Reach(frozenset(lanes), sandbox, next(iter(lanes)))


def assemble(  # noqa: PLR0913 - where all parts meet
    acceptance: Acceptance,
    readiness: health.Readiness,
    reach: Reach,
    gate: Gate,
    tenants: Tenants,
    *,
    rates: Rates,
    lists: resources.Lists,
    queues: Queues,
    finals: Finals,
    replay: payments.Replay = payments.Replay.CONFLICT,
    access_log: bool = False,
) -> FastAPI:
    """The app around its parts, whatever they are made of."""
    app = Front(
        title="Kifiya Payment Gateway",
        version="1",
        description="Takes payments in spikes; calls providers at their pace.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    creating = payments.creating(acceptance, reach, gate, finals, replay)
    app.include_router(payments.routes(acceptance, gate, creating))
    app.include_router(batch.routes(Batch(acceptance, reach, gate, replay, rates)))
    app.include_router(resources.routes(Resources(acceptance, lists, gate)))
    app.include_router(lane_resources.routes(queues))
    app.include_router(health.routes(readiness))
    app.include_router(registry.routes())
    docs.install(app)
    problem.install(app)
    app.add_middleware(Edge, gate=gate, tenants=tenants, rates=rates, access_log=access_log, shortcuts=[creating])
    openapi.install(app)
    return app
