"""The load: a client that begins each request when it is due, and writes it down; and the one that speaks HTTP.

A client that does not know asks again with the same key, as clients should: as an operation of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx2

from ops.chaos.asked import of_http
from ops.chaos.case import Case
from ops.chaos.evidence import Answer, Via
from ops.chaos.history import Kind, Writer
from ops.chaos.wishes import Wish, Wishes

IN_FLIGHT: Final = 64
"""Requests in hand of one client; those that are due beyond it wait."""
TRIES: Final = 6
PAUSE_S: Final = 1.0
HTTP_S: Final = 5.0

Once = Callable[[Wish], Awaitable[Answer]]


class Client:
    """Begins operations at a rate, and writes their history."""

    def __init__(self, name: str, folder: Path, chance: random.Random, stop: asyncio.Event) -> None:
        self._name = name
        self._chance = chance
        self._stop = stop
        self._writer = Writer(folder / f"client-{name}.jsonl", name)
        self._numbers = itertools.count(1)
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Have the history open for the block, and all that was begun ended with it."""
        with self._writer:
            try:
                yield
                if self._tasks:
                    await asyncio.wait(self._tasks)
            finally:
                for task in self._tasks:
                    task.cancel()
                if self._tasks:
                    await asyncio.wait(self._tasks)

    async def at_rate(self, rate: float, seconds: float, begin: Callable[[], Awaitable[None]]) -> None:
        """Begin ``rate`` operations a second, each when it is due, until the time is over or the stop is wanted."""
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            if self._stop.is_set():
                return
            await self._slots.acquire()
            task = asyncio.ensure_future(begin())
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def insist(self, wish: Wish, once: Once) -> None:
        """Ask until it is known what became of it, a few times at most; each time is an operation of its own."""
        for _ in range(TRIES):
            if await once(wish) in {Answer.ACCEPTED, Answer.REPEATED}:
                return
            if wish.bad or wish.cancel:
                return
            await asyncio.sleep(PAUSE_S * self._chance.uniform(0.5, 1.5))

    def invoke(self, wish: Wish, via: Via) -> str:
        """Write down that this is tried; the operation's name."""
        of = f"{self._name}-{next(self._numbers)}"
        self._writer.write(Kind.INVOKE, of, via=via.value, **wish.said())
        return of

    def learn(self, of: str, answer: Answer, **more: Any) -> None:
        """Write down what came of it."""
        kind = {Answer.MAYBE: Kind.INFO, Answer.REFUSED: Kind.FAIL}.get(answer, Kind.OK)
        self._writer.write(kind, of, answer=answer.value, **more)


async def over_http(case: Case, urls: list[str], keys: dict[str, str], folder: Path, stop: asyncio.Event) -> None:
    """Create and cancel over HTTP for the case's duration, or until ``stop``."""
    chance = random.Random(f"{case.seed}-http")  # noqa: S311 - a seed that can be had again
    client, wishes = Client("http", folder, chance, stop), Wishes(case, "http", list(keys))
    limits = httpx2.Limits(max_connections=2 * IN_FLIGHT)
    async with httpx2.AsyncClient(timeout=HTTP_S, limits=limits, trust_env=False) as http, client.writing():

        async def once(wish: Wish) -> Answer:
            of = client.invoke(wish, Via.HTTP)
            path = f"/v1/payments/{wish.payment_id}/cancel" if wish.cancel else "/v1/payments"
            headers = {"Authorization": f"Bearer {keys[wish.merchant_id]}", "Content-Type": "application/json"}
            if not wish.cancel:
                headers["Idempotency-Key"] = wish.key
            try:
                found = await http.post(
                    chance.choice(urls) + path, content=b"" if wish.cancel else wish.body.encode(), headers=headers
                )
            except httpx2.ConnectError:
                answer, status = Answer.REFUSED, 0  # not a byte was sent
            except httpx2.HTTPError:
                answer, status = Answer.MAYBE, 0
            else:
                status = found.status_code
                answer = of_http(status, replayed="idempotency-replayed" in found.headers, code=_code(found))
            client.learn(of, answer, status=status)
            return answer

        await client.at_rate(case.workload.http, case.duration_s, lambda: client.insist(wishes.next(raw=False), once))


def _code(found: httpx2.Response) -> str:
    with suppress(ValueError):
        body = found.json()
        if isinstance(body, dict):
            return str(body.get("code", ""))
    return ""
