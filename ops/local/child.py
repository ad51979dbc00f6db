"""Processes bound to their parent: started as an unprivileged user, killed by the kernel when the parent dies."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_NOBODY: Final = 65534
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class StartError(Exception):
    """A part did not come up; the message says which and what it wrote last."""


def bind_to_parent() -> None:
    """In a fresh child: be killed when the parent dies (Linux; elsewhere a parent killed with -9 leaves it behind)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run_folder(prefix: str = "kifiya-run-") -> Path:
    """A fresh temporary folder, owned by the user that parts run as. Folders whose process is gone are removed."""
    base = Path(tempfile.gettempdir())
    for old in base.glob(f"{prefix}*-*"):
        pid = old.name[len(prefix) :].partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)) and old.stat().st_uid in {os.getuid(), _uid()}:
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    give(folder)
    return folder


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def give(path: Path) -> None:
    """Let the user that parts run as own this path."""
    if os.getuid() == 0:
        os.chown(path, _NOBODY, _NOBODY)


def _uid() -> int:
    return _NOBODY if os.getuid() == 0 else os.getuid()


def reachable(path: Path, folder: Path) -> Path:
    """The file or tree, where the user that parts run as may run it: itself, or a copy under ``folder``."""
    path = path.resolve()
    mode_ok = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    executable = path.is_dir() or os.access(path, os.X_OK)
    if executable and (os.getuid() != 0 or mode_ok):
        return path
    copy = folder / path.name
    if path.is_dir():
        shutil.copytree(path, copy, symlinks=True)
        for item in [copy, *copy.rglob("*")]:
            item.chmod(0o755)
    else:
        shutil.copy(path, copy)
        copy.chmod(0o755)
    return copy


def unprivileged() -> dict[str, Any]:
    """Arguments of subprocess.Popen that drop root's rights, where there are any to drop."""
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.getuid() == 0 else {}


def run_unprivileged(
    command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end as the user that parts run as; what it writes is in ``stdout``."""
    return subprocess.run(  # noqa: S603 - our own command
        list(command), env=dict(env) if env is not None else None, cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False, **unprivileged(),
    )  # fmt: skip


class Child:
    """One process of the stack. ``probe`` answers True once it serves; it raises or answers False before that.

    What it writes goes to ``log``; without one, to our own stderr.
    """

    def __init__(  # noqa: PLR0913 - a process has that many sides
        self,
        name: str,
        command: Sequence[str],
        *,
        probe: Callable[[], Awaitable[bool]],
        log: Path | None,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        drop_rights: bool = True,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._probe = probe
        self._log = log
        self._env = dict(env) if env is not None else None
        self._stop_signal = stop_signal
        self._drop_rights = drop_rights
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def spawn(self) -> None:
        """Start the process; it is not ready yet. Call it from the main thread: the bond is to the starting thread."""
        with self._log.open("ab") if self._log is not None else nullcontext() as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log or sys.stderr,
                stderr=log or sys.stderr,
                env=self._env,
                cwd=self._log.parent if self._log is not None else None,
                start_new_session=True,
                preexec_fn=bind_to_parent,  # noqa: PLW1509 - a single prctl; no other thread holds a lock it needs
                **(unprivileged() if self._drop_rights else {}),
            )

    @property
    def exit_status(self) -> int | None:
        """How it ended, as subprocess tells it; None while it runs or was never started."""
        return self._process.poll() if self._process is not None else None

    async def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until it serves. Raises StartError."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if self.pid is None:
                        raise StartError(f"{self.name} exited: {self.tail()}")
                    try:
                        if await self._probe():
                            return
                    except StartError:
                        raise
                    except Exception:  # noqa: S110, BLE001 - not ready is what a probe's failure means
                        pass
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise StartError(f"{self.name} did not answer within {timeout_s:g} s: {self.tail()}") from error

    def tail(self) -> str:
        """The last lines that it wrote."""
        if self._log is None:
            return "see the log above"
        try:
            return self._log.read_text(errors="replace")[-600:].strip().replace("\n", " | ")
        except OSError:
            return ""

    def kill(self) -> None:
        """Kill it with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def restart(self) -> None:
        """Start it again, on the same port and data; returns when it serves. Raises StartError."""
        self.spawn()
        await self.ready()

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Ask it to stop, and make it."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(self._stop_signal)
        end = asyncio.get_running_loop().time() + timeout_s
        while process.poll() is None and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        if process.poll() is None:
            process.kill()
        process.wait()
