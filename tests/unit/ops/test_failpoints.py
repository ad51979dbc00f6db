"""Failpoints do what the setting says, once they are armed, and say what is wrong with a setting."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import pytest

from ops import failpoints
from ops.failpoints import Failpoint, Injected

PLACE = Failpoint("test.place")


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    PLACE.disarm()


async def test_one_that_is_not_armed_does_nothing() -> None:
    await PLACE.reach()


async def test_raise_raises_every_time_or_the_nth_time_only() -> None:
    assert failpoints.arm(" test.place=raise ,") == ["test.place"]
    for _ in range(2):
        with pytest.raises(Injected, match=r"test\.place"):
            await PLACE.reach()
    PLACE.arm("raise@3")
    await PLACE.reach()
    await PLACE.reach()
    with pytest.raises(Injected):
        await PLACE.reach()
    await PLACE.reach()


async def test_pause_holds_its_coroutine_and_nobody_else() -> None:
    PLACE.arm("pause:0.05")
    began = time.monotonic()
    held = asyncio.create_task(PLACE.reach())
    await asyncio.sleep(0)
    assert not held.done()
    await held
    assert time.monotonic() - began >= 0.05


async def test_kill_is_a_kill() -> None:
    code = (
        "import asyncio; from ops import failpoints as f; p = f.Failpoint('x.y'); f.arm('x.y=kill@2')\n"
        "async def main():\n await p.reach(); print('once', flush=True); await p.reach(); print('twice', flush=True)\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert (process.returncode, said) == (-9, b"once\n")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("test.plaec=kill", "test.plaec: is no failpoint of this role; there are "),
        ("test.place", "test.place=: write"),
        ("test.place=die", "write kill"), ("test.place=pause", "write kill"), ("test.place=pause:-1", "write kill"),
        ("test.place=kill@0", "write kill"), ("test.place=pause:1e9", "write kill"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named(setting: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"failpoint|write") as told:
        failpoints.arm(setting)
    assert says in str(told.value)


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        Failpoint("test.place")
    assert "test.place" in failpoints.names()
