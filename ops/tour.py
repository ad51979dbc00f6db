"""The demo's tour: what the API promises, shown on one payment that is repeated, contradicted and cancelled.

It stands behind the demo's own records in the lane, so that its cancel comes before its turn and it costs no call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2

from ops.local.state import Running
from schemas.records import State

CREATED, ACCEPTED, CONFLICT, REFUSED = 201, 202, 409, 422


class Tour:
    """One payment's tour. ``tell`` prints a line; ``faults`` is what was not as promised."""

    def __init__(self, running: Running, key: str, tell: Callable[[str], object]) -> None:
        self._running = running
        self._key = key
        self._tell = tell
        self.faults: list[str] = []
        self.payment_id = ""

    async def send(self, http: httpx2.AsyncClient) -> None:
        """Create, repeat, contradict and cancel the payment. Raises httpx2 errors."""
        made = await self._create(http, "5.00")
        self._check("a create is answered", made, CREATED, "status", State.PENDING)
        self.payment_id = made.json().get("payment_id", "")
        self._place(made.json().get("queue"))
        same = await self._create(http, "5.00")
        self._check("the same request again is answered", same, CONFLICT, "payment_id", self.payment_id)
        if same.headers.get("idempotency-replayed") != "true":
            self.faults.append("a repeat does not say that it is one")
        other = await self._create(http, "6.00")
        self._check("another amount under its key is answered", other, REFUSED, "code", "idempotency-key-reused")
        cancelled = await http.post(self._address(f"/{self.payment_id}/cancel"), headers=self._headers())
        self._check("its cancel is answered", cancelled, ACCEPTED, "payment_id", self.payment_id)

    async def state(self, http: httpx2.AsyncClient) -> str:
        """How the payment stands now. Raises httpx2 errors."""
        answer = await http.get(self._address(f"/{self.payment_id}"), headers=self._headers())
        return str(answer.json().get("status"))

    def end(self, state: str, charged: int) -> None:
        """Tell how it ended; ``charged`` is how often the provider charged it.

        Where the cancel came too late, which a slow machine may do, it must have been charged, and once.
        """
        self._tell(f"  the cancelled payment is {state} and was charged {charged} times")
        if (state, charged) not in {(State.CANCELLED, 0), (State.COMPLETED, 1)}:
            self.faults.append(f"a payment that was cancelled is {state} and was charged {charged} times")

    async def _create(self, http: httpx2.AsyncClient, amount: str) -> httpx2.Response:
        fields = {"amount": amount, "currency": "USD", "payment_method": "pm_approve", "description": "tour"}
        return await http.post(self._address(), json=fields, headers={"Idempotency-Key": self._key, **self._headers()})

    def _place(self, queue: dict[str, Any] | None) -> None:
        """Tell its place in the queue, where the answer has one."""
        if queue is None:
            return
        self._tell(f"  it is number {queue.get('position')} in the queue, and its turn comes in {queue.get('eta_s')} s")
        if queue.get("position") is None and queue.get("reason") is None:
            self.faults.append("a payment has no place in the queue, and no reason why")

    def _address(self, path: str = "") -> str:
        return f"{self._running.ingress}/v1/payments{path}"

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._running.api_key}"}

    def _check(self, what: str, answer: httpx2.Response, status: int, field: str, expected: str) -> None:
        found: dict[str, Any] = answer.json()
        self._tell(
            f"  {what} {answer.status_code} {found.get('status') if field == 'payment_id' else found.get(field)}"
        )
        if (answer.status_code, found.get(field)) != (status, expected):
            self.faults.append(f"{what} {answer.status_code} with {field} {found.get(field)!r}")
