"""Redis adapter of the limiter: one Lua script, on the server's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from schemas.lanes import Lane
from streams.limiter.store import StoreLimiter

SCRIPT: Final = (Path(__file__).parent / "acquire.lua").read_text()
ANSWER_S: Final = 0.5


class RedisLimiter(StoreLimiter):
    """Limiter of one lane over all its workers, on the clock of one Redis server."""

    away = (RedisError,)

    def __init__(
        self, url: str, lane: Lane, *, client: Redis | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(lane, clock)
        self._client: Redis = client or Redis.from_url(
            url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=False,
            max_connections=4,
        )
        self._key = f"limiter:{{{lane.name}}}"
        self._sha = ""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def _time_us(self) -> int:
        seconds, micros = await self._client.time()
        return int(seconds * 1_000_000 + micros)

    async def _reserve(self, lead_us: int) -> tuple[bool, int, int]:
        granted, number, now_us, _ = await self._run(lead_us)
        return granted == 1, int(number), int(now_us)

    async def _run(self, lead_us: int) -> Any:
        arguments = (self._lane.limit, self._window_us, lead_us)
        if self._sha:
            try:
                return await self._client.evalsha(self._sha, 1, self._key, *arguments)
            except NoScriptError:
                self._sha = ""
        self._sha = await self._client.script_load(SCRIPT)
        return await self._client.evalsha(self._sha, 1, self._key, *arguments)
