"""A role is started again whenever it ends, with the settings of its next life, unless it is held down."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from pathlib import Path

import pytest

from ops.chaos.actors import Role, signal_tree, supervise, tree
from ops.local.child import StartError
from ops.local.ports import free_port

SERVE = """
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["LIFE"].encode())
    def log_message(self, *_): pass
print("life", os.environ["LIFE"], file=sys.stderr, flush=True)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""


def role_of(tmp_path: Path, code: str = SERVE) -> Role:
    port = free_port()
    return Role(
        "one", [sys.executable, "-c", code], f"http://127.0.0.1:{port}/", {"PORT": str(port), "LIFE": "last"},
        tmp_path / "one.log",
    )  # fmt: skip


async def test_its_lives_follow_one_another_and_how_each_ended_is_known(tmp_path: Path) -> None:
    role = role_of(tmp_path)
    role.lives = deque([{"LIFE": "1"}, {"LIFE": "2"}])
    role.start()
    watching = asyncio.create_task(supervise([role]))
    try:
        await role.ready(20)
        for life in (2, 3):
            assert role.pid is not None
            signal_tree(role.pid, signal.SIGKILL)
            async with asyncio.timeout(20):
                while role.started < life:
                    await asyncio.sleep(0.01)
            await role.ready(20)
        role.kill()
        await asyncio.sleep(0.3)
        assert role.pid is None
        await role.revive()
        await role.ready(20)
    finally:
        watching.cancel()
        await role.stop()
    lives = [line.split()[1] for line in (tmp_path / "one.log").read_text().splitlines() if line.startswith("life")]
    assert lives == ["1", "2", "last", "last"]
    assert role.ended == [-9, -9, -9]


async def test_one_that_never_serves_is_told(tmp_path: Path) -> None:
    role = role_of(tmp_path, "import sys; sys.exit('no such thing')")
    role.start()
    with pytest.raises(StartError, match="no such thing"):
        await role.ready(0.5)
    await role.stop()


async def test_a_stop_lets_go_of_one_that_was_stopped(tmp_path: Path) -> None:
    role = role_of(tmp_path)
    role.start()
    await role.ready(20)
    assert role.pid is not None
    signal_tree(role.pid, signal.SIGSTOP)
    await asyncio.wait_for(role.stop(), 10)
    assert role.pid is None


async def test_a_tree_is_a_process_and_all_that_came_of_it() -> None:
    sleeper = "import time; print(1, flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    found = tree(process.pid)
    assert (found[0], len(found)) == (process.pid, 2)
    signal_tree(process.pid, signal.SIGKILL)
    assert await process.wait() == -9
