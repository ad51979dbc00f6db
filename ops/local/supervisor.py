"""Keeps the roles running: one that dies is started again, first within a second, backing off to ten, loudly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ops.local.child import Child, StartError
from ops.telemetry import logger

FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 10.0
SOUND_AFTER_S: Final = 30.0
LOOK_S: Final = 0.1
STOP_S: Final = 15.0
HOPELESS: Final = 5
"""Falls in a row after which a start is given up."""


@dataclass(slots=True)
class _Watched:
    child: Child
    started_at: float
    falls: int = 0
    again_at: float | None = None


def wait_s(falls: int) -> float:
    """Seconds to wait before the start after this many falls in a row: 0.2 doubling to 10."""
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(falls - 1, 16)))


class Supervisor:
    """Starts the roles and watches them. ``changed`` is called whenever some role has another process id."""

    def __init__(self, changed: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic) -> None:
        self._changed = changed
        self._clock = clock
        self._roles: dict[str, _Watched] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Role to process id, of those that run now."""
        return {name: role.child.pid for name, role in self._roles.items() if role.child.pid is not None}

    def start(self, child: Child) -> None:
        """Start a role and watch it from now on."""
        child.spawn()
        self._roles[child.name] = _Watched(child, self._clock())

    async def ready(self, timeout_s: float) -> None:
        """Wait until every role serves, over a few restarts. Raises StartError for the first that does not.

        :meth:`watch` must run meanwhile.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for role in self._roles.values():
                    group.create_task(self._served(role, timeout_s))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _served(self, role: _Watched, timeout_s: float) -> None:
        end = self._clock() + timeout_s
        while True:
            try:
                return await role.child.ready(max(0.1, end - self._clock()))
            except StartError:
                if role.falls >= HOPELESS or self._clock() >= end:
                    raise
                await asyncio.sleep(LOOK_S)

    async def watch(self) -> None:
        """Look at every role ten times a second, and start again what has ended; never returns."""
        while True:
            if self.look():
                self._changed()
            await asyncio.sleep(LOOK_S)

    def look(self) -> bool:
        """One look; whether some role was started."""
        now, started = self._clock(), False
        for name, role in self._roles.items():
            if role.child.pid is not None:
                if role.falls and now - role.started_at > SOUND_AFTER_S:
                    role.falls = 0
            elif role.again_at is None:
                role.falls += 1
                pause_s = wait_s(role.falls)
                role.again_at = now + pause_s
                logger().error(
                    "A ROLE DIED, it is started again",
                    action="role-died",
                    name=name,
                    rc=role.child.exit_status,
                    count=role.falls,
                    wait_s=round(pause_s, 1),
                )
            elif now >= role.again_at:
                role.again_at, role.started_at, started = None, now, True
                role.child.spawn()
                logger().warning("started again", action="role-restarted", name=name, pid=role.child.pid)
        return started

    async def stop(self) -> None:
        """Ask all roles to stop, and make those that do not."""
        await asyncio.gather(*(role.child.stop(STOP_S) for role in self._roles.values()))
