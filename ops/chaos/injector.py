"""The fault injector: does what the schedule says, when it says it, undoes it, and writes both down."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import redis.asyncio as redis

from ops.chaos.actors import Actor, signal_tree
from ops.chaos.case import NETWORK, PROCESS, SERVICES, Deed, Due, Fault, schedule
from ops.chaos.history import Kind, Writer
from ops.chaos.proxy import Mode
from ops.chaos.rig import Rig

_MODES: Final = {
    Deed.LATENCY: Mode.LATENCY, Deed.RESET: Mode.RESET, Deed.STALL: Mode.STALL,
    Deed.BLACKHOLE: Mode.BLACKHOLE, Deed.DROP_ANSWERS: Mode.DROP_ANSWERS,
}  # fmt: skip
LATENCY_MS: Final = 100

Undo = Callable[[], Awaitable[None]]


def turn_of(what: str) -> str:
    """Whose faults wait for one another: those of one target, and of all nodes of a service."""
    service = what.partition("-")[0]
    return service if service in SERVICES else what


class Injector:
    """Attacks a rig. Faults of one target wait for one another; others overlap as their times do."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._chance = random.Random(f"{rig.case.seed}-injector")  # noqa: S311 - a seed that can be had again
        self._locks: dict[str, asyncio.Lock] = {}
        self._writer = Writer(rig.folder / "faults.jsonl", "injector")
        self.failed: list[str] = []
        """Faults that could not be done, or whose target did not come back."""

    async def run(self) -> None:
        """Do the whole schedule; returns when all is undone."""
        began = time.monotonic()
        with self._writer:
            async with asyncio.TaskGroup() as group:
                for due in schedule(self._rig.case):
                    group.create_task(self._one(due, began))

    async def _one(self, due: Due, began: float) -> None:
        await asyncio.sleep(max(0.0, began + due.at_s - time.monotonic()))
        fault, of = due.fault, f"fault-{due.number}"
        async with self._locks.setdefault(turn_of(fault.link), asyncio.Lock()):
            actors = self._rig.actors(fault.what) if fault.do in {*PROCESS, Deed.CLOCK} else []
            actor = self._chance.choice(actors) if actors else None
            on = actor.name if actor is not None else fault.what
            self._writer.write(Kind.FAULT, of, deed=fault.kind, for_s=fault.for_s, ms=fault.ms, on=on)
            done = False
            try:
                undo = await self._do(fault, actor)
                done = True
                try:
                    await asyncio.sleep(fault.for_s)
                finally:
                    await undo()
            except Exception as error:  # noqa: BLE001 - the run goes on, and its verdict says so
                self.failed.append(f"{fault.kind}: {type(error).__name__}: {error}")
            finally:
                self._writer.write(Kind.HEAL, of, deed=fault.kind, done=done)

    async def _do(self, fault: Fault, actor: Actor | None) -> Undo:
        """Do it; how it is undone."""
        if fault.do in NETWORK:
            return self._network(fault)
        if fault.do is Deed.FAILOVER:
            return await self._failover()
        if fault.do in {Deed.FLUSH, Deed.SCRIPT_FLUSH}:
            return await self._redis(fault)
        if actor is None:
            raise LookupError(f"{fault.what}: nothing of that name runs")
        return self._clock(fault, actor) if fault.do is Deed.CLOCK else self._process(fault, actor)

    def _process(self, fault: Fault, actor: Actor) -> Undo:
        pid = actor.pid
        if fault.do is Deed.KILL:
            actor.kill()
            return actor.revive
        if fault.do is Deed.STOP and pid is not None:
            signal_tree(pid, signal.SIGSTOP)

            async def go_on() -> None:
                signal_tree(pid, signal.SIGCONT)

            return go_on
        if pid is not None:
            with suppress(ProcessLookupError):
                signal_tree(pid, signal.SIGTERM)
        return _nothing

    def _clock(self, fault: Fault, actor: Actor) -> Undo:
        self._rig.clocks.jump(actor.name, fault.ms)

        async def right() -> None:
            self._rig.clocks.jump(actor.name, 0)

        return right

    def _network(self, fault: Fault) -> Undo:
        proxies = self._rig.proxies[fault.link]
        for proxy in proxies:
            proxy.become(_MODES[fault.do], latency_ms=fault.ms or LATENCY_MS)

        async def well() -> None:
            for proxy in proxies:
                proxy.become(Mode.OPEN)

        return well

    async def _failover(self) -> Undo:
        pair = self._rig.pair
        if pair is None:
            raise LookupError("redis: has no standby")
        await pair.cut()
        return pair.switch

    async def _redis(self, fault: Fault) -> Undo:
        """A command to Redis itself."""
        client = redis.from_url(self._rig.stack.redis_url, socket_timeout=5, socket_connect_timeout=5)
        try:
            await (client.flushall() if fault.do is Deed.FLUSH else client.script_flush())
        finally:
            await client.aclose()
        return _nothing


async def _nothing() -> None:
    """There is nothing to undo."""
