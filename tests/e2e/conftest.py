"""One fast gateway for all end-to-end tests that do not watch the limit itself."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.e2e.gateway import Gateway, running

FAST = '{"simulator": {"provider": "simulator", "limit": 50, "guard_ms": 250, "call_timeout_ms": 2000}}'


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway() -> AsyncIterator[Gateway]:
    """A gateway whose lane allows 50 calls a second, on the stack that TEST_STACK names."""
    async with running(os.environ.get("TEST_STACK", "embedded"), LANES=FAST) as found:
        yield found
