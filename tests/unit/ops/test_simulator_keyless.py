"""A provider that knows no idempotency keys charges as often as it is asked, and finds a charge by its reference."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ops.simulator.provider import Provider
from ops.simulator.server import Simulator
from schemas.lanes import KEYLESS_SANDBOX, Lane
from streams.providers import Outcome, OutcomeKind, open_provider
from streams.providers import Provider as Port
from tests.unit.streams.world import TASK


@asynccontextmanager
async def asked(provider: Provider) -> AsyncIterator[Port]:
    async with Simulator(provider, 0).listening("127.0.0.1", 0) as port:
        lane = Lane(name="bank", provider=KEYLESS_SANDBOX, url=f"http://127.0.0.1:{port}")
        async with open_provider(lane) as adapter:
            yield adapter


async def at_once() -> None:
    """The slot has begun."""


async def charge(adapter: Port) -> Outcome:
    return await adapter.charge(TASK, idempotency_key=TASK.payment_id, before_write=at_once)


async def status(adapter: Port) -> Outcome:
    return await adapter.status(TASK, idempotency_key=TASK.payment_id, before_write=at_once)


async def test_each_request_is_a_charge_of_its_own() -> None:
    provider = Provider(10, 1_000_000_000, time.monotonic_ns, keyless=True)
    async with asked(provider) as adapter:
        assert adapter.key_lifetime_s is None
        assert (await status(adapter)).kind is OutcomeKind.ABSENT
        first, second = await charge(adapter), await charge(adapter)
        found = await status(adapter)
    assert (first.kind, second.kind, found.kind) == (OutcomeKind.APPROVED,) * 3
    assert first.provider_charge_id == found.provider_charge_id != second.provider_charge_id
    assert [each["reference"] for each in provider.dump()["charges"]] == [TASK.payment_id] * 2
    assert {seen.key for seen in provider.log} == {None}


@pytest.mark.parametrize("provider", ["simulator", KEYLESS_SANDBOX])
def test_both_are_sandboxes(provider: str) -> None:
    assert Lane(name="bank", provider=provider).sandbox
    assert not Lane(name="bank", provider="a-real-one").sandbox
