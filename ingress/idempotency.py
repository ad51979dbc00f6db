"""What Redis remembers of a key: first the claim ``publishing``, then ``published`` with the payment as accepted."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import hiredis
import redis.asyncio as redis
from redis.exceptions import NoScriptError, ResponseError

from ingress.batches import Batches
from ingress.presence import Presence


class Script:
    """A Lua file, called by its hash."""

    def __init__(self, name: str) -> None:
        self.text: Final = Path(__file__).with_name(name).read_text()
        self.sha: Final = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_CLAIM: Final = Script("claim.lua")
_PUBLISHED: Final = Script("published.lua")
_RELEASE: Final = Script("release.lua")
_SPENT: Final = Script("spent.lua")
_SCRIPTS: Final = (_CLAIM, _PUBLISHED, _RELEASE, _SPENT)
_LOAD: Final[list[tuple[Any, ...]]] = [("SCRIPT", "LOAD", script.text) for script in _SCRIPTS]


class Standing(StrEnum):
    """What became of the key's first request."""

    NEW = "new"
    BUSY = "busy"
    CONFLICT = "conflict"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim.

    ``document`` is set where the payment was published, ``wait_ms`` where it is being so, ``lease`` names a new claim.
    """

    standing: Standing
    document: bytes | None = None
    wait_ms: int = 0
    lease: int = 0


class Keys:
    """The keys in Redis. Every method raises Away instead of waiting longer than twice ``timeout_s``."""

    def __init__(self, url: str, *, lease_s: float, remember_s: int, timeout_s: float = 0.3) -> None:
        # No time-out of the socket: each round has one, and one for each answer would cost more than to read it.
        self._pool: Any = redis.ConnectionPool.from_url(
            url, socket_timeout=None, socket_connect_timeout=timeout_s, driver_info=None
        )
        self._connection: Any = None
        self._presence = Presence("redis", self._look)
        self._batches: Batches[tuple[Any, ...], Any] = Batches(self._presence, self._carry, timeout_s=timeout_s)
        self._lease_ms = int(lease_s * 1000)
        self._remember_ms = remember_s * 1000

    async def close(self) -> None:
        """Close the connection."""
        await self._presence.close()
        await self._drop()

    async def ping(self) -> None:
        """Whether Redis answers. Raises Away."""
        await self._batches.ask(("PING",))

    async def claim(self, payment_id: str, fingerprint: str) -> Claim:
        """Claim the right to publish this payment, or tell what stands."""
        return _claim(await self._asked(payment_id, fingerprint, only_look=0))

    async def look(self, payment_id: str, fingerprint: str) -> Claim:
        """Like ``claim``, and leaves no trace."""
        return _claim(await self._asked(payment_id, fingerprint, only_look=1))

    async def published(self, payment_id: str, fingerprint: str, document: bytes) -> None:
        """Kafka has it."""
        await self._call(_PUBLISHED, payment_id, fingerprint, document, self._remember_ms)

    async def release(self, payment_id: str, lease: int) -> None:
        """The publish of this claim failed: the next request with this key and body may try at once."""
        await self._call(_RELEASE, payment_id, lease)

    async def document(self, payment_id: str) -> bytes | None:
        """The payment as it was accepted, where it was published."""
        state, document = await self._batches.ask(("HMGET", _key(payment_id), "state", "document"))
        return document if state == b"published" else None

    async def spend(self, merchant_id: str, window: tuple[int, int], count: int) -> tuple[int, int]:
        """Add requests to a merchant's window, (seconds, number); its count then, and the window before's."""
        seconds, number = window
        names = (f"rate:{{{merchant_id}}}:{seconds}:{each}" for each in (number, number - 1))
        total, before = await self._batches.ask(("EVALSHA", _SPENT.sha, 2, *names, count, seconds * 2000))
        return total, before

    def _asked(self, payment_id: str, fingerprint: str, *, only_look: int) -> asyncio.Future[Any]:
        return self._call(_CLAIM, payment_id, fingerprint, self._lease_ms, self._remember_ms, only_look)

    def _call(self, script: Script, payment_id: str, *arguments: Any) -> asyncio.Future[Any]:
        return self._batches.post(("EVALSHA", script.sha, 1, _key(payment_id), *arguments))

    async def _carry(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """One round trip; a second one where a restarted Redis does not know the scripts."""
        try:
            if self._connection is None:
                self._connection = self._pool.make_connection()
                await self._connection.connect()
                await self._send(_LOAD)
            answers = await self._send(commands)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                await self._send(_LOAD)
                unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                again = await self._send([commands[place] for place in unknown])
                for place, answer in zip(unknown, again, strict=True):
                    answers[place] = answer
        except (Exception, asyncio.CancelledError):
            await self._drop()
            raise
        return answers

    async def _send(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """The answers, in order; an error that Redis gave for one command stands in its place."""
        connection = self._connection
        await connection.send_packed_command([hiredis.pack_command(each) for each in commands], check_health=False)
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(await connection.read_response())
            except ResponseError as error:
                answers.append(error)
        return answers

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _look(self) -> None:
        await self._carry([("PING",)])


def _claim(raw: list[Any]) -> Claim:
    standing = Standing(raw[0].decode())
    match standing:
        case Standing.NEW:
            return Claim(standing, lease=int(raw[1]))
        case Standing.PUBLISHED:
            return Claim(standing, document=raw[1])
        case Standing.BUSY:
            return Claim(standing, wait_ms=int(raw[1]))
        case Standing.CONFLICT:
            return Claim(standing)


def _key(payment_id: str) -> str:
    return f"payment:{{{payment_id}}}"
