"""One stack of real servers for each module of tests: what one leaves in the topics is not seen by another.

TEST_STACK names it: embedded (the default), apache, external (URLs from the environment) or containers (Docker).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import cast

import pytest_asyncio
from hypothesis import settings

from ops.local.stack import Kind, Stack, running
from tests import containers

settings.register_profile("busy", deadline=None)  # an example's time is the machine's: speed is shown by make bench
settings.load_profile("busy")


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
