"""A client of the gateway, plain and async. It tries again with the same key, so that no retry can charge twice.

Run it for one payment each way: ``python payments.py``, with KIFIYA_URL and KIFIYA_API_KEY set.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2

TRIES = 6
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "REVIEW"}


class Refused(Exception):
    """The gateway will not take it, however often it is asked: ``problem`` says why (RFC 9457)."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail", "no problem document"))
        self.problem = problem


class Unanswered(Exception):
    """All tries are used up, and it is not known whether it was accepted: ask again later, with the same key."""


def waits() -> Iterator[float]:
    """Seconds before each further try: 0.2 doubling to 5, with full jitter so that clients do not come in step."""
    for attempt in range(TRIES - 1):
        yield random.uniform(0.1, min(5.0, 0.2 * 2**attempt))  # noqa: S311 - no secret


def payment_in(answer: httpx2.Response) -> dict[str, Any] | None:
    """The payment of an answer to a create; None: try again. Raises Refused.

    409 with Idempotency-Replayed is the payment too: an earlier try had come through.
    """
    if answer.status_code in {200, 201} or answer.headers.get("idempotency-replayed") == "true":
        found: dict[str, Any] = answer.json()
        return found
    if answer.status_code in {408, 409, 429} or answer.status_code >= 500:  # noqa: PLR2004
        return None
    raise Refused(answer.json())


def asked_to_wait(answer: httpx2.Response, otherwise: float) -> float:
    """Seconds to wait: what the gateway asks for, where it does."""
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isdigit() else otherwise


class Gateway:
    """The plain client."""

    def __init__(self, url: str, api_key: str) -> None:
        self._http = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=10)

    def create(self, key: str, **fields: Any) -> dict[str, Any]:
        """Create a payment, or find the one that this key names already. Raises Refused, Unanswered."""
        for wait_s in [*waits(), None]:
            rest_s = wait_s or 0.0
            try:
                answer = self._http.post("/v1/payments", json=fields, headers={"Idempotency-Key": key})
            except httpx2.TransportError:  # it may have been accepted all the same: hence the same key
                pass
            else:
                if found := payment_in(answer):
                    return found
                rest_s = asked_to_wait(answer, rest_s)
            if wait_s is not None:
                time.sleep(rest_s)
        raise Unanswered(key)

    def wait(self, payment_id: str, within_s: float = 30) -> dict[str, Any]:
        """The payment once it is final, or waits for a person. Raises TimeoutError."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            answer = self._http.get(f"/v1/payments/{payment_id}")
            if answer.is_success and answer.json()["status"] in FINAL:
                found: dict[str, Any] = answer.json()
                return found
            time.sleep(0.25)
        raise TimeoutError(payment_id)


class AsyncGateway:
    """The same, async: many payments at a time over few connections."""

    def __init__(self, url: str, api_key: str) -> None:
        self._http = httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=10)

    async def create(self, key: str, **fields: Any) -> dict[str, Any]:
        """Create a payment, or find the one that this key names already. Raises Refused, Unanswered."""
        for wait_s in [*waits(), None]:
            rest_s = wait_s or 0.0
            try:
                answer = await self._http.post("/v1/payments", json=fields, headers={"Idempotency-Key": key})
            except httpx2.TransportError:
                pass
            else:
                if found := payment_in(answer):
                    return found
                rest_s = asked_to_wait(answer, rest_s)
            if wait_s is not None:
                await asyncio.sleep(rest_s)
        raise Unanswered(key)

    async def create_and_wait(self, key: str, *, seconds: int = 10, **fields: Any) -> dict[str, Any]:
        """Create, and let the gateway answer with the end, where it comes in time. Raises Refused, TransportError."""
        wanted = {"Idempotency-Key": key, "Prefer": f"wait={seconds}"}
        answer = await self._http.post("/v1/payments", json=fields, headers=wanted, timeout=seconds + 10)
        return payment_in(answer) or await self.create(key, **fields)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def plain(url: str, api_key: str) -> None:
    """One payment, twice under one key; and one that is refused."""
    gateway = Gateway(url, api_key)
    key = f"order-{uuid.uuid4()}"
    order = {"amount": "12.50", "currency": "USD", "payment_method": "pm_approve"}
    payment = gateway.create(key, **order)
    same = gateway.create(key, **order)
    print("one payment:", payment["payment_id"] == same["payment_id"])
    print("ended:", gateway.wait(payment["payment_id"])["status"])
    try:
        gateway.create(f"order-{uuid.uuid4()}", **{**order, "amount": "0"})
    except Refused as refused:
        print("refused:", refused.problem["code"], refused.problem["errors"][0]["field"])


async def many(url: str, api_key: str) -> None:
    """Five payments at a time, each answered with its end where that comes within ten seconds."""
    gateway = AsyncGateway(url, api_key)
    order: dict[str, Any] = {"amount": "3.00", "currency": "USD", "payment_method": "pm_decline"}
    found = await asyncio.gather(*(gateway.create_and_wait(f"order-{uuid.uuid4()}", **order) for _ in range(5)))
    print("five more:", sorted({payment["status"] for payment in found}))
    await gateway.close()


if __name__ == "__main__":
    where = os.environ["KIFIYA_URL"], os.environ["KIFIYA_API_KEY"]
    plain(*where)
    asyncio.run(many(*where))
