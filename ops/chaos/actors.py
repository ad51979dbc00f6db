"""The processes of a run, as a fault takes hold of them: killed, stopped, asked to end, and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ops.bench.rig import answers
from ops.local.child import Child, StartError
from ops.local.supervisor import wait_s

START_S: Final = 90.0
AGAIN_S: Final = 0.5
LOOK_S: Final = 0.05
SOUND_AFTER_S: Final = 20.0


class Actor(Protocol):
    """What a fault may take hold of."""

    @property
    def name(self) -> str:
        """As the history tells it."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""

    def kill(self) -> None:
        """Kill it with SIGKILL; it stays down until :meth:`revive`."""

    async def revive(self) -> None:
        """Have it run and serve again. Raises StartError."""


def tree(pid: int) -> list[int]:
    """The process and all that came of it, as far as they live now."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def signal_tree(pid: int, number: signal.Signals) -> None:
    """Send this signal to a process and all that came of it."""
    for each in tree(pid):
        with suppress(ProcessLookupError):
            os.kill(each, number)


@dataclass(slots=True)
class Service:
    """A part of the stack. Its data stay where they are, so Redis, which keeps none on disk, comes back empty."""

    child: Child

    @property
    def name(self) -> str:
        """As the history tells it."""
        return self.child.name

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.child.pid

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.child.kill()

    async def revive(self) -> None:
        """Start it on its port and data, as often as it needs: PostgreSQL waits for the last of its old processes."""
        end = time.monotonic() + START_S
        while True:
            try:
                await (self.child.restart() if self.child.pid is None else self.child.ready())
            except StartError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(AGAIN_S)
            else:
                return


@dataclass(slots=True)
class Role:
    """A role's process, started again whenever it has ended, unless it is held down.

    ``lives``: further settings, each of one start, first come first served; ``places`` tells where in the log each of
    these lives began, ``ended`` how every life did.
    """

    name: str
    command: Sequence[str]
    url: str
    settings: Mapping[str, str]
    log: Path
    lives: deque[Mapping[str, str]] = field(default_factory=deque)
    places: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    started: int = 0
    down: bool = False
    _child: Child | None = None
    _began: float = 0.0
    _falls: int = 0
    _again_at: float = 0.0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child is not None else None

    def start(self) -> None:
        """Start it now. Call it from the main thread."""
        further: Mapping[str, str] = {}
        if self.lives:
            further = self.lives.popleft()
            self.places.append(self.log.stat().st_size if self.log.exists() else 0)

        async def probe() -> bool:
            return await answers(self.url)

        self._child = Child(
            self.name, self.command, probe=probe, log=self.log, env={**os.environ, **self.settings, **further},
            drop_rights=False,
        )  # fmt: skip
        self._child.spawn()
        self._began = time.monotonic()
        self.started += 1

    def look(self) -> None:
        """Start it again where it has ended of itself: first at once, later and later where it falls again."""
        if self._child is None or self._child.pid is not None:
            return
        now = time.monotonic()
        if self._child.exit_status is not None and len(self.ended) < self.started:
            self.ended.append(self._child.exit_status)
            self._falls = 1 if now - self._began > SOUND_AFTER_S else self._falls + 1
            self._again_at = now + wait_s(self._falls)
        if not self.down and now >= self._again_at:
            self.start()

    def kill(self) -> None:
        """Kill the process with SIGKILL; it stays down until :meth:`revive`."""
        self.down = True
        if self._child is not None:
            self._child.kill()

    async def revive(self) -> None:
        """Let it be started; it may take a while until it serves."""
        self.down, self._again_at = False, 0.0
        self.look()

    async def ready(self, timeout_s: float = START_S) -> None:
        """Wait until it serves, over restarts. Raises StartError."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                if self._child is not None:
                    return await self._child.ready(max(0.1, end - time.monotonic()))
            except StartError:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """Let go of it where it was stopped, ask it to end, and make it."""
        self.down = True
        if self._child is not None:
            if self._child.pid is not None:
                signal_tree(self._child.pid, signal.SIGCONT)
            await self._child.stop(15.0)


async def supervise(roles: Sequence[Role]) -> None:
    """Start again what has ended, for ever."""
    while True:
        for role in roles:
            role.look()
        await asyncio.sleep(LOOK_S)
