"""``kifiya up`` itself: what it prints, what it supervises, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import FAST
from tests.e2e.gateway import Gateway, running, until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

ROLES = {"ingress", "intake", "dispatch", "delay", "sink"}


def descendants(pid: int) -> set[int]:
    """Processes that come from this one, itself left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: set[int] = set()
    while True:
        more = {child for child, parent in parents.items() if parent in found | {pid}} - found
        if not more:
            return found
        found |= more


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_the_json_line_says_where_everything_is(gateway: Gateway) -> None:
    found = await gateway.status()
    for name in ("ingress", "simulator"):
        parts = urlsplit(found[name])
        assert (parts.scheme, parts.path) == ("http", "")
        assert parts.port
    assert found["kafka"].rpartition(":")[2].isdigit()
    assert found["redis"].startswith("redis://")
    assert found["postgres"].startswith("postgresql://")
    assert set(found["pids"]) >= ROLES
    assert found["merchant_id"] == gateway.merchant_id
    assert found["api_key"].startswith("kfy_test_")
    for role in ROLES:
        command = Path(f"/proc/{found['pids'][role]}/cmdline").read_bytes()
        assert b"kifiya up" not in command
        assert b"sh\0-c" not in command


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
async def test_nothing_is_left_behind(how: signal.Signals) -> None:
    async with running("embedded", LANES=FAST) as own:
        left = descendants(own.process.pid)
        assert len(left) >= len(ROLES) + 4
        os.kill(own.process.pid, how)
        code = await asyncio.wait_for(own.process.wait(), 30)
        assert code == (0 if how is signal.SIGTERM else -signal.SIGKILL)

        async def gone() -> bool:
            return not any(alive(pid) for pid in left)

        await until(gone, "all processes are gone", 10)
