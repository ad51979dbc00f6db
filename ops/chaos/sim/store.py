"""A Redis in small: the limiter's script on a clock of its own, and all that can happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ops.chaos.sim.loop import running, sleep, within
from streams.limiter.sliding_log import Granted, SlidingLog

ANSWER_S: Final = 0.5
EPOCH_S: Final = 1_767_225_600


@dataclass(slots=True)
class Server:
    """One Redis; ``acquire`` is ``acquire.lua``, by the pure rule that the tests hold against it."""

    random: Random
    drift: float = 0.0
    jump_us: int = 0
    run: int = 1
    away_until: float = 0.0
    hung_until: float = 0.0
    knows_script: bool = False
    log: tuple[int, int, list[int]] | None = None
    """The hash of the lane: run id, limit, slots."""

    def now_us(self) -> int:
        """TIME."""
        return int((EPOCH_S + running().now * (1 + self.drift)) * 1e6) + self.jump_us

    def acquire(self, limit: int, window_us: int, lead_us: int) -> list[Any]:
        """The script. Raises NoScriptError."""
        if not self.knows_script:
            raise NoScriptError("NOSCRIPT")
        now_us = self.now_us()
        slots = None
        if self.log is not None and self.log[:2] == (self.run, limit):
            slots = [slot if slot <= now_us + 2 * window_us else now_us + window_us for slot in self.log[2]]
        rule = SlidingLog(limit, window_us, slots)
        answer = rule.reserve(now_us, lead_us)
        self.log = (self.run, limit, rule.slots or [])
        if isinstance(answer, Granted):
            return [1, str(answer.slot_us), str(now_us), str(self.run)]
        return [0, str(answer.wait_us), str(now_us), str(self.run)]

    def load(self) -> str:
        """SCRIPT LOAD."""
        self.knows_script = True
        return "sha"

    def flush(self) -> None:
        """FLUSHALL."""
        self.log = None

    def restart(self, *, keep: bool) -> None:
        """A new process: empty, or with what it had saved (whose run id is not its own)."""
        self.run += 1
        self.knows_script = False
        self.log = self.log if keep else None

    def time(self) -> tuple[int, int]:
        """TIME, as the client gives it."""
        return divmod(self.now_us(), 1_000_000)


class Client:
    """What the limiter needs of ``redis.asyncio.Redis``."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def evalsha(self, _sha: str, _keys: int, _key: str, limit: int, window_us: int, lead_us: int) -> Any:
        """EVALSHA of the limiter's script."""
        return await self._ask(lambda: self._server.acquire(limit, window_us, lead_us))

    async def script_load(self, _text: str) -> Any:
        """SCRIPT LOAD."""
        return await self._ask(self._server.load)

    async def time(self) -> Any:
        """TIME."""
        return await self._ask(self._server.time)

    async def aclose(self) -> None:
        """Nothing to close."""

    async def _ask(self, act: Callable[[], Any]) -> Any:
        """One round trip. A question whose answer comes too late was heard all the same."""
        loop, server = running(), self._server
        if server.away_until > loop.now:
            await sleep(0.001)
            raise RedisConnectionError("refused")
        answer: asyncio.Future[Any] = loop.create_future()

        def tell(found: Any) -> None:
            if not answer.done():
                if isinstance(found, Exception):
                    answer.set_exception(found)
                else:
                    answer.set_result(found)

        def hear() -> None:
            try:
                found = act()
            except NoScriptError as error:
                found = error
            loop.call_world(loop.now + self._latency_s(), lambda: tell(found))

        loop.call_world(max(loop.now + self._latency_s(), server.hung_until), hear)
        try:
            return await within(ANSWER_S, answer)
        except TimeoutError as error:
            raise RedisTimeoutError("no answer") from error

    def _latency_s(self) -> float:
        random = self._server.random
        return random.uniform(0.0001, 0.002) if random.random() < 0.97 else random.uniform(0.002, 0.3)
