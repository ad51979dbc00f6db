"""What runs beside a role's agents: an error in it ends the role, rather than leave it to do half its work for ever."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from ops.kafka import faust_app


class App:
    """What it knows of its app."""

    failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.failure = error


@pytest.fixture
def app() -> Any:
    return cast("Any", App())


async def breaks() -> None:
    await asyncio.sleep(0)
    raise ValueError("a defect")


async def ends() -> None:
    await asyncio.sleep(0)


async def test_an_error_stops_the_process(app: Any) -> None:
    async with faust_app.beside(app, ends(), breaks()):
        while app.failure is None:
            await asyncio.sleep(0)
    assert str(app.failure) == "a defect"


async def test_what_ends_in_order_or_is_cancelled_at_the_end_stops_nothing(app: Any) -> None:
    begun = asyncio.Event()

    async def falls_over_its_end() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    async with faust_app.beside(app, ends(), falls_over_its_end()):
        await begun.wait()
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert app.failure is None
