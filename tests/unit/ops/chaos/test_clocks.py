"""A clock that jumps is the wall's, of the process concerned alone; without the library the run says how to get it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.chaos.clocks import Clocks, library
from ops.local.child import StartError
from tests import faketime

TELL = """
import os, sys, time
for line in sys.stdin:
    print(time.time(), time.time_ns() / 1e9, time.monotonic(), time.clock_gettime(time.CLOCK_MONOTONIC_RAW),
          time.perf_counter(), os.stat(sys.argv[1]).st_mtime, flush=True)
"""


def test_without_the_library_a_case_with_clocks_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="apt-get install libfaketime"):
        library(tmp_path)


def test_a_case_without_clocks_needs_no_library_and_sets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.chaos.clocks.library", lambda: pytest.fail("nobody needs it"))
    assert Clocks(tmp_path, []).settings("intake") == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["lib/x86_64-linux-gnu/faketime", "lib/faketime", "lib64/faketime"])
def test_the_library_is_found_where_distributions_put_it(tmp_path: Path, place: str) -> None:
    path = tmp_path / place / "libfaketimeMT.so.1"
    path.parent.mkdir(parents=True)
    path.touch()
    assert library(tmp_path) == path


@faketime.needed
def test_only_the_processes_that_a_fault_is_about_are_touched(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path, ["dispatch", "ingress"])
    touched = [name for name in ("dispatch-a", "dispatch-b#2", "ingress", "ingress#2", "intake", "redis")
               if clocks.settings(name)]  # fmt: skip
    assert touched == ["dispatch-a", "dispatch-b#2", "ingress", "ingress#2"]
    files = {clocks.settings(name)["FAKETIME_TIMESTAMP_FILE"] for name in touched}
    assert len(files) == len(touched)


CONTEND = """
import threading, time
def work():
    for _ in range(8_000_000): pass
began, waited = time.process_time(), time.monotonic()
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
used_s, begun = time.process_time() - began, time.monotonic()
threading.Event().wait(0.1)
print(used_s, time.monotonic() - begun)
"""


@faketime.needed
@pytest.mark.alone
@pytest.mark.parametrize("ms", [0, 3_600_000, -3_600_000])
def test_threads_wait_for_one_another_as_they_do_without_the_library(tmp_path: Path, ms: int) -> None:
    """They wait for Python's own lock on a condition with a deadline: mishandled, they spin."""
    clocks = Clocks(tmp_path, ["intake"])
    settings = clocks.settings("intake")
    clocks.jump("intake", ms)
    plain, under = (
        subprocess.run(
            [sys.executable, "-c", CONTEND], env={**os.environ, **extra}, capture_output=True, timeout=30, check=True
        )
        for extra in ({}, settings)
    )
    (plain_s, _), (under_s, waited_s) = (map(float, each.stdout.split()) for each in (plain, under))
    assert under_s < 3 * plain_s + 0.2
    assert 0.1 <= waited_s < 1


@faketime.needed
async def test_the_wall_clock_jumps_and_the_monotonic_clocks_and_files_stay_true(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path, ["intake"])
    (seen := tmp_path / "file").touch()
    mtime = seen.stat().st_mtime
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TELL, str(seen), env={**os.environ, **clocks.settings("intake")},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for ms in (0, 150, -150, 5000, -5000, 3_600_000, -3_600_000, 0):
            clocks.jump("intake", ms)
            before = time.time(), time.monotonic()
            process.stdin.write(b"now\n")
            wall, wall_ns, monotonic, raw, counter, modified = map(float, (await process.stdout.readline()).split())
            after = time.time(), time.monotonic()
            assert before[0] <= wall - ms / 1000 <= after[0] + 0.001
            assert before[0] <= wall_ns - ms / 1000 <= after[0] + 0.001
            assert before[1] <= monotonic <= after[1]
            assert before[1] <= counter <= after[1]
            assert raw == pytest.approx(time.clock_gettime(time.CLOCK_MONOTONIC_RAW), abs=after[1] - before[1] + 0.01)
            assert modified == mtime
    finally:
        process.kill()
        await process.wait()
