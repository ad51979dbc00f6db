"""Fair share, shown by the demo in a lane of its own: who sends a few does not wait for another's many.

One merchant queues eighty payments, then another one a few; on which calls they were is read in the provider's log.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import httpx2

from ops import merchants
from ops.local.gateway import DEFAULT_LANES
from ops.local.state import Running
from ops.verify import windows
from schemas.api_key import SANDBOX_PEPPER, SCOPES, Mode
from schemas.records import State

LANE: Final = "market"
LIMIT: Final = 10
MANY, FEW = ("demo-wholesale", 80), ("demo-corner-shop", 5)
"""Each merchant, and how many payments it sends; in this order."""
SECOND_NS: Final = 1_000_000_000
CREATED: Final = 201


def with_lane(lanes: str) -> str:
    """These lanes, as ``LANES`` has them, and behind them the demo's own; what is no JSON object stays as it is."""
    try:
        found = json.loads(lanes or DEFAULT_LANES)
    except ValueError:
        return lanes
    if not isinstance(found, dict):
        return lanes
    return json.dumps({**found, LANE: {"provider": "simulator", "url": "", "limit": LIMIT, "guard_ms": 40}})


@dataclass(slots=True)
class Calls:
    """What the lane's provider has seen, by merchant; ``sent`` are the payment ids of each, in the order of sending.

    ``requests`` and ``charges`` are those of its log; ``began_ns`` is when the second merchant sent, on its clock.
    """

    sent: Mapping[str, Sequence[str]]
    requests: Sequence[Mapping[str, Any]]
    charges: Sequence[Mapping[str, Any]]
    began_ns: int = 0
    completed: int = 0
    order: list[Mapping[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.order = sorted((each for each in self.requests if each["key"]), key=lambda each: each["arrived_ns"])

    @property
    def total(self) -> int:
        """Payments of both."""
        return sum(map(len, self.sent.values()))

    def charged(self, merchant: str) -> int:
        """How many of its payments are charged."""
        found = {each["reference"] for each in self.charges if each["status"] == "approved"}
        return sum(1 for payment_id in self.sent[merchant] if payment_id in found)

    def last(self, merchant: str) -> tuple[int, float]:
        """On which call the last of its payments was, and how long after the second merchant sent, in seconds."""
        wanted = set(self.sent[merchant])
        at = [(number, each["arrived_ns"]) for number, each in enumerate(self.order, 1) if each["key"] in wanted]
        number, arrived_ns = max(at, default=(0, self.began_ns))
        return number, (arrived_ns - self.began_ns) / SECOND_NS

    def faults(self) -> list[str]:
        """What was not as promised, once all should be done."""
        found = [
            f"fair share: {self.charged(name)} of {name}'s {count} payments are charged"
            for name, count in (MANY, FEW)
            if self.charged(name) != count
        ]
        if self.completed != self.total:
            found.append(f"fair share: {self.completed} of {self.total} payments are completed in PostgreSQL")
        twice = sum(1 for count in Counter(each["reference"] for each in self.charges).values() if count > 1)
        if twice:
            found.append(f"fair share: {twice} payments were charged twice")
        most = windows.most([each["arrived_ns"] for each in self.requests], SECOND_NS)
        if most > LIMIT:
            found.append(f"fair share: {most} calls in a second, {LIMIT} are allowed")
        if self.last(FEW[0])[0] > MANY[1] / 2:
            found.append(f"fair share: {FEW[0]}'s last payment was call {self.last(FEW[0])[0]}, behind {MANY[0]}'s")
        return found


class FairShare:
    """Two merchants in one lane. ``keys`` are their API keys, ``tell`` prints a line; see ``faults`` after the end."""

    def __init__(self, running: Running, keys: Mapping[str, str], run: str, tell: Callable[[str], object]) -> None:
        self._running = running
        self._keys = keys
        self._run = run
        self._tell = tell
        self._provider = json.loads(running.lanes)[LANE]["url"]
        self._sent: dict[str, list[str]] = {}
        self._began_ns = 0
        self._few_told = False
        self.faults: list[str] = []

    async def send(self, http: httpx2.AsyncClient) -> None:
        """First the many, then the few. Raises httpx2 errors."""
        for name, count in (MANY, FEW):
            self._began_ns = time.monotonic_ns()
            self._sent[name] = await self._batch(http, name, count)
        self._tell(
            f"  in a lane of {LIMIT} calls a second {MANY[0]} has queued {MANY[1]} payments, and then {FEW[0]} {FEW[1]}"
        )

    async def _batch(self, http: httpx2.AsyncClient, merchant: str, count: int) -> list[str]:
        fields = {"amount": "7.50", "currency": "USD", "payment_method": "pm_approve", "lane": LANE}
        lines = [json.dumps({"idempotency_key": f"{self._run}-{number:03}", **fields}) for number in range(count)]
        answer = await http.post(
            f"{self._running.ingress}/v1/payments/batch",
            content="\n".join(lines),
            headers={"Authorization": f"Bearer {self._keys[merchant]}", "Content-Type": "application/x-ndjson"},
            timeout=30,
        )
        said = [json.loads(line) for line in answer.text.splitlines()] if answer.is_success else []
        made = [each["payment"]["payment_id"] for each in said if each["status"] == CREATED]
        if len(made) != count:
            self.faults.append(f"{merchant}'s batch is answered {answer.status_code}, {len(made)} of {count} created")
        return made

    async def done(self, db: asyncpg.Connection, http: httpx2.AsyncClient) -> bool:
        """Whether all are charged and completed; tells when the few are. Raises httpx2 and asyncpg errors."""
        calls = await self._calls(db, http)
        if not self._few_told and calls.charged(FEW[0]) == FEW[1]:
            self._few_told = True
            left = MANY[1] - calls.charged(MANY[0])
            self._tell(f"  {FEW[0]}'s {FEW[1]} payments are charged, while {left} of {MANY[0]}'s {MANY[1]} still wait")
        return calls.completed == calls.total

    async def end(self, db: asyncpg.Connection, http: httpx2.AsyncClient) -> None:
        """Tell how it ended, and find what was not as promised. Raises httpx2 and asyncpg errors."""
        calls = await self._calls(db, http)
        (few, few_s), (many, many_s) = calls.last(FEW[0]), calls.last(MANY[0])
        self._tell(
            f"  {FEW[0]}'s last payment was call {few} of {calls.total}, after {few_s:.1f} s, {MANY[0]}'s was call "
            f"{many}, after {many_s:.1f} s; in one line {FEW[0]}'s would have been the last"
        )
        self.faults += calls.faults()

    async def _calls(self, db: asyncpg.Connection, http: httpx2.AsyncClient) -> Calls:
        observed = (await http.get(f"{self._provider}/observed")).json()
        ids = [payment_id for sent in self._sent.values() for payment_id in sent]
        completed = await db.fetchval(
            "SELECT count(*) FROM payments WHERE payment_id = ANY($1::uuid[]) AND state = $2", ids, State.COMPLETED
        )
        return Calls(self._sent, observed["requests"], observed["charges"], self._began_ns, completed)


async def two_merchants(running: Running) -> dict[str, str]:
    """Add both merchants, and make a key of each. Raises ops.merchants.Refused, OSError and asyncpg errors."""
    pepper = (os.environ.get("API_KEY_PEPPER") or SANDBOX_PEPPER).encode()
    found: dict[str, str] = {}
    async with asyncio.timeout(10), merchants.connected(running.postgres) as db:
        for name, _ in (MANY, FEW):
            await merchants.add(db, name, Mode.TEST)
            found[name] = (await merchants.create_key(db, pepper, name, SCOPES, label="kifiya demo")).key
    return found
