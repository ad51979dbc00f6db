"""One stack of real servers for each module of tests: what one leaves in the topics is not seen by another.

TEST_STACK names it: embedded (the default), apache, external (URLs from the environment) or containers (Docker).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio
from hypothesis import settings

from ops.local.stack import Kind, Stack, running
from tests import containers

settings.register_profile("busy", deadline=None)  # an example's time is the machine's: speed is shown by make bench
settings.load_profile("busy")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Tests that share servers run in one worker: a module's, and all end-to-end tests, which share a gateway.

    But on Apache Kafka, where some modules take so long that they are better split (as ``--dist`` says).
    """
    if os.environ.get("TEST_STACK") == "apache":
        return None
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - the tests run without it, too

    class ByStack(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return "tests/e2e" if module.startswith("tests/e2e/") else module

    return ByStack(config, log)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    """A broker, a Redis and a PostgreSQL."""
    kind = os.environ.get("TEST_STACK", "embedded")
    if kind == "containers":
        async with containers.running() as found:
            yield found
    else:
        async with running(cast("Kind", kind)) as found:  # a wrong name fails there, with its reason
            yield found
