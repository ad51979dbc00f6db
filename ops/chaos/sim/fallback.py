"""One life of a lane whose limiter moves between Redis and PostgreSQL: real limiters, and every link may break.

Workers do nothing but take permits and call; the provider notes what arrives, and who had granted it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any, Final, cast

from ops.chaos.checker import Violation
from ops.chaos.sim.links import Link, Log, LogClient, PostgresConnection, RedisClient
from ops.chaos.sim.loop import Loop, Process, running, sleep
from ops.chaos.sim.store import Server
from ops.verify import windows
from schemas.lanes import Lane
from streams.errors import LimiterUnavailable, PermitExpired
from streams.limiter.authority import AWAY_S, Authority, Store, pace
from streams.limiter.postgres import PostgresLimiter
from streams.limiter.redis import RedisLimiter
from streams.limiter.switching import SwitchingLimiter

LANE: Final = Lane(name="sim", limit=2, window_ms=1000, guard_ms=20)
WINDOW_S: Final = (LANE.window_ms + LANE.guard_ms) / 1000
TROUBLE_S: Final = 30.0
"""Faults begin within so long."""
LONGEST_S: Final = 25.0
"""And last at most so long."""
HEAL_S: Final = 35.0
"""From the last fault's end until calls flow through Redis, whatever was before: a move there may have to end first."""
WITHOUT_S: Final = 30.0
"""Without Redis, and with all else well, until calls flow."""
REST_S: Final = 0.5


@dataclass(slots=True)
class Life:
    """What came of one seed. ``calls``: when each arrived, in nanoseconds, by which store's grant."""

    seed: int
    calls: list[tuple[int, Store]] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Caller:
    """One worker: a process that takes permits and calls."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.links = {part: Link(world.random) for part in ("redis", "postgres", "kafka")}
        self._world = world
        self._starts = 0
        self._rate = 1 + world.random.uniform(-5e-4, 5e-4)
        self._offset = world.random.uniform(0, 1e6)
        self.process = Process(name)

    def clock(self) -> float:
        """The machine's monotonic clock."""
        return running().now * self._rate + self._offset

    def start(self) -> None:
        """Start it, or start it anew."""
        self._starts += 1
        self.process = Process(self.name)
        self.process.spawn(self._main())

    def kill(self, restart_s: float) -> None:
        """SIGKILL; it is started again."""
        if not self.process.dead:
            self.process.dead = True
            running().call_world(running().now + restart_s, self.start)

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT so much later."""
        self.process.stopped_until = max(self.process.stopped_until, running().now + seconds)

    async def _main(self) -> None:
        world = self._world

        async def connect() -> Any:
            return PostgresConnection(world.postgres, self.links["postgres"])

        client = cast("Any", RedisClient(world.redis, self.links["redis"]))
        limiter = SwitchingLimiter(
            {
                Store.REDIS: RedisLimiter("redis://unused", LANE, client=client, clock=self.clock),
                Store.POSTGRES: PostgresLimiter("unused", LANE, connect=connect, clock=self.clock),
            },
            LogClient(world.log, self.links["kafka"]),
            Authority(LANE.name, f"{self.name}-{self._starts}", pace(WINDOW_S)),
            self.clock,
        )
        self.process.spawn(limiter.watch())
        while True:
            try:
                await self._call(limiter)
            except LimiterUnavailable:
                await sleep(REST_S)
            except PermitExpired:
                pass

    async def _call(self, limiter: SwitchingLimiter) -> None:
        """Take a permit, write the request in its slot, as dispatch does."""
        world, loop = self._world, running()
        permit = await limiter.acquire(world.random.choice((0.005, 0.05, 0.5)))
        store = Store.REDIS if limiter.authority.epoch % 2 == 0 else Store.POSTGRES
        while (early_s := permit.opens_at - self.clock()) > 0:
            await sleep(early_s)
        permit.check(self.clock())
        loop.call_world(
            loop.now + world.random.uniform(0, LANE.guard_ms / 1000 * 0.45), functools.partial(world.arrive, store)
        )


class World:
    """Everything of one life, made from the seed."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)  # noqa: S311 - whoever knows the seed is to know what happens
        self.life = Life(seed)
        self.redis = Server(random, drift=random.uniform(-1e-4, 1e-4))
        self.postgres = Server(random, drift=random.uniform(-1e-4, 1e-4), jump_us=random.randint(-(10**7), 10**7))
        self.log = Log(random)
        self.callers = [Caller(self, f"worker-{number}") for number in range(random.choice((1, 2, 2, 3)))]
        self.healed_at = TROUBLE_S

    def arrive(self, store: Store) -> None:
        """A request is at the provider."""
        self.life.calls.append((round(running().now * 1e9), store))

    async def run(self) -> Life:
        """Live: a time of troubles, then a quiet one."""
        for caller in self.callers:
            caller.start()
        alone = self.random.random() < 0.2
        if alone:
            self._redis_only()
        else:
            for _ in range(self.random.randint(1, 5)):
                self._plan(self.random.choice(self._faults()), self.random.uniform(3.0, TROUBLE_S))
        while running().now < (end := max(self.healed_at + HEAL_S, TROUBLE_S + LONGEST_S if alone else 0.0)):
            await sleep(end - running().now)
        self.life.seconds = running().now
        self._judge(end)
        return self.life

    # What goes wrong.

    def _redis_only(self) -> None:
        """Redis away, and nothing else: then calls have to flow again."""
        begin, seconds = 5.0, WITHOUT_S + 12.0
        self._plan(self._away(self.redis, "redis"), begin, seconds)
        running().call_world(begin + seconds - 0.1, lambda: self._flowed(begin + 1.0, begin + WITHOUT_S))

    def _plan(self, fault: Callable[[float], None], at: float, seconds: float | None = None) -> None:
        lasts = (
            self.random.choice((2.0, LONGEST_S / 2, LONGEST_S)) * self.random.random() if seconds is None else seconds
        )
        self.healed_at = max(self.healed_at, at + lasts)
        running().call_world(at, lambda: fault(lasts))

    def _faults(self) -> list[Callable[[float], None]]:
        random = self.random
        one, another = random.choice(self.callers), random.choice(self.callers)
        server, name = random.choice(((self.redis, "redis"), (self.postgres, "postgres")))
        part = random.choice(("redis", "postgres", "kafka"))
        return [
            self._away(self.redis, "redis"),
            self._away(self.redis, "redis"),
            self._away(self.postgres, "postgres"),
            lambda _: self._told(f"{name} is emptied", server.flush),
            lambda _: self._told(f"{name} starts anew", lambda: server.restart(keep=random.random() < 0.5)),
            lambda s: self._told(f"{name} hangs for {s:.1f} s", lambda: self._hang(server, s)),
            lambda _: self._told(f"{name}'s clock jumps", lambda: self._jump(server)),
            lambda s: self._told(f"kafka is away for {s:.1f} s", lambda: self._deaf(s)),
            lambda s: self._told(f"{one.name} is cut off from {part} for {s:.1f} s", lambda: self._cut(one, part, s)),
            lambda s: self._told(f"{one.name} sees only redis, {another.name} only postgres, for {s:.1f} s",
                                 lambda: self._cut_both((one, "postgres"), (another, "redis"), s)),
            lambda s: self._told(f"{one.name} is cut off from redis and kafka for {s:.1f} s",
                                 lambda: self._cut_both((one, "redis"), (one, "kafka"), s)),
            lambda _: self._leave_behind(one, another),
            lambda _: self._leave_behind(one, another, random.uniform(3.0, 20.0)),
            lambda _: self._come_anew(one, another),
            lambda s: self._told(f"{one.name} stops for {s:.1f} s", lambda: one.stop(s)),
            lambda s: self._told(f"{one.name} stops for {s:.1f} s", lambda: one.stop(s)),
            lambda s: self._told(f"{one.name} dies", lambda: one.kill(min(s, 3.0))),
        ]  # fmt: skip

    def _leave_behind(self, one: Caller, another: Caller, lag_s: float = 0.0) -> None:
        """One goes deaf, or hears late, about when the lane leaves Redis for another's sake."""
        now, deaf_in = running().now, self.random.uniform(AWAY_S - 1.0, AWAY_S + 1.5)
        self._say(
            f"{another.name} is cut off from redis; {one.name} {f'hears {lag_s:.1f} s late' if lag_s else 'deaf'}"
        )
        self._cut(another, "redis", LONGEST_S + lag_s)
        if lag_s:
            link = one.links["kafka"]
            link.lags_until, link.lag_s = now + LONGEST_S + lag_s, lag_s
        else:
            running().call_world(now + deaf_in, lambda: self._cut(one, "kafka", LONGEST_S - deaf_in))
        self.healed_at = max(self.healed_at, now + LONGEST_S + lag_s)

    def _come_anew(self, one: Caller, another: Caller) -> None:
        """One starts anew, and sees Redis, while PostgreSQL grants for another's sake, who cannot say so just then."""
        now, starts_in = running().now, self.random.uniform(23.0, 28.0)
        self._say(f"{another.name} is cut off from redis; {one.name} starts anew in {starts_in:.1f} s")
        self._cut(another, "redis", starts_in + 10.0)
        running().call_world(now + starts_in, lambda: self._cut(another, "kafka", 4.5))
        running().call_world(now + starts_in, lambda: one.kill(0.3))
        self.healed_at = max(self.healed_at, now + starts_in + 10.0)

    def _away(self, server: Server, name: str) -> Callable[[float], None]:
        def begin(seconds: float) -> None:
            self._say(f"{name} is away for {seconds:.1f} s")
            server.away_until = max(server.away_until, running().now + seconds)
            if self.random.random() < 0.7:
                keep = self.random.random() < 0.5
                running().call_world(running().now + seconds, lambda: server.restart(keep=keep))

        return begin

    def _hang(self, server: Server, seconds: float) -> None:
        server.hung_until = running().now + seconds

    def _jump(self, server: Server) -> None:
        server.jump_us += int(self.random.choice((-1, 1)) * self.random.choice((0.05, 0.2, 1.0, 3600.0)) * 1e6)

    def _deaf(self, seconds: float) -> None:
        self.log.away_until = running().now + seconds

    def _cut(self, caller: Caller, part: str, seconds: float) -> None:
        link = caller.links[part]
        link.cut_until = max(link.cut_until, running().now + seconds)

    def _cut_both(self, this: tuple[Caller, str], that: tuple[Caller, str], seconds: float) -> None:
        for caller, part in (this, that):
            self._cut(caller, part, seconds)

    def _told(self, what: str, act: Callable[[], object]) -> None:
        self._say(what)
        act()

    def _say(self, what: str) -> None:
        self.life.trace.append(f"{running().now:8.3f}  {what}")

    # What is left.

    def _flowed(self, begin: float, end: float) -> None:
        found = {store for at, store in self.life.calls if begin * 1e9 < at < end * 1e9}
        if Store.POSTGRES not in found:
            self._violated("calls-flow-again", f"none by PostgreSQL {begin:.1f} to {end:.1f} s")

    def _judge(self, end: float) -> None:
        calls = sorted(self.life.calls)
        window = LANE.window_ms * 1_000_000
        if over := windows.over([at for at, _ in calls], LANE.limit, window):
            self._violated("within-the-limit", f"{over} calls over the limit")
        for (at, store), (later, other) in pairwise(calls):
            if store is not other and later - at < window:
                self._violated(
                    "one-authority", f"{store} granted until {at / 1e9:.3f} s, {other} at {later / 1e9:.3f} s"
                )
        if not any(store is Store.REDIS for at, store in calls if at > (end - 5.0) * 1e9):
            self._violated("calls-flow-again", "none by Redis when all has been well for long")

    def _violated(self, promise: str, what: str) -> None:
        self.life.violations.append(Violation(promise, LANE.name, what))


_LOOP: list[Loop] = []


def live(seed: int) -> Life:
    """Live the life of this seed; always the same one."""
    if not _LOOP:
        _LOOP.append(Loop())
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    return _LOOP[0].live(World(seed).run())
