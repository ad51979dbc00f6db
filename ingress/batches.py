"""Asks of one moment share a round trip: while one batch is under way the next gathers, over a single connection.

A thousand requests a second need no pool of connections for that, and none can run dry under a burst.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from ingress.presence import Away, Presence
from ops.deadline import within

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

LARGEST: Final = 512


class Batches(Generic[Ask, Answer]):
    """Carries asks to a store. ``carry`` answers each of a batch, in order; an exception where only that one failed."""

    def __init__(
        self,
        presence: Presence,
        carry: Callable[[list[Ask]], Coroutine[Any, Any, list[Answer | Exception]]],
        *,
        timeout_s: float,
    ) -> None:
        self._presence = presence
        self._carry = carry
        self._timeout_s = timeout_s
        self._waiting: deque[tuple[Ask, asyncio.Future[Answer]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def ask(self, item: Ask) -> Answer:
        """The store's answer. Raises Away: at once where it is known to be away, else within twice ``timeout_s``."""
        return await self.post(item)

    def post(self, item: Ask) -> asyncio.Future[Answer]:
        """Like ``ask``, and asked for before it is awaited, without a task for that."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if (refusal := self._presence.refusal()) is not None:
            answer.set_exception(refusal)
            return answer
        self._waiting.append((item, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(LARGEST, len(self._waiting)))]
                await self._round([pair for pair in batch if not pair[1].done()])
        finally:
            self._working = None

    async def _round(self, batch: list[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        answers: list[Answer | Exception] = []
        try:
            if batch:
                with within(self._timeout_s, patient=True):
                    answers = await self._carry([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - the adapters know no error that says the store is well
            self._presence.lost(error)
            batch += self._waiting
            self._waiting.clear()
            answers = [error] * len(batch)
        for (_, waiter), answer in zip(batch, answers, strict=True):
            if waiter.done():
                continue
            if isinstance(answer, Exception):
                away = Away(f"{self._presence.name}: {type(answer).__name__}")
                away.__cause__ = answer
                waiter.set_exception(away)
            else:
                waiter.set_result(answer)
