"""Failpoints: named places between two writes where a test makes the process die, wait or fail. A leaf.

``FAILPOINTS=ingress.after-claim=kill,relay.after-publish=pause:2`` arms them, ``@3`` behind it the third
time only. One that is not armed costs a tenth of a microsecond; one that acts says so in the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from dataclasses import dataclass
from typing import Final

_ACTION: Final = re.compile(
    r"(?:(?P<verb>kill|raise)|pause:(?P<seconds>\d{1,4}(?:\.\d{1,3})?))(?:@(?P<nth>[1-9]\d{0,5}))?"
)


class Injected(Exception):
    """What an armed failpoint raises; nobody expects it by name."""


@dataclass(slots=True)
class _Action:
    verb: str
    seconds: float
    left: int


class Failpoint:
    """One place; made once, where the module is. Its name is ``role.place``, unique in the process."""

    __slots__ = ("_action", "name")

    def __init__(self, name: str) -> None:
        if name in _ALL:
            raise ValueError(f"failpoint {name} is there twice")
        self.name = name
        self._action: _Action | None = None
        _ALL[name] = self

    async def reach(self) -> None:
        """Go on, unless it is armed: then die as by kill -9, wait, or raise Injected."""
        if self._action is not None:
            await self._act(self._action)

    def arm(self, action: str) -> None:
        """Do this when it is reached: ``kill``, ``raise`` or ``pause:SECONDS``; ``@N``: the Nth time only.

        Raises ValueError.
        """
        found = _ACTION.fullmatch(action)
        if found is None:
            raise ValueError(f"{self.name}={action[:40]}: write kill, raise or pause:SECONDS, and @N for the Nth time")
        self._action = _Action(found["verb"] or "pause", float(found["seconds"] or 0), int(found["nth"] or 0))

    def disarm(self) -> None:
        """Do nothing again."""
        self._action = None

    async def _act(self, action: _Action) -> None:
        if action.left > 1:
            action.left -= 1
            return
        if action.left:
            self.disarm()
        logging.getLogger(__name__).warning("failpoint %s: %s", self.name, action.verb)
        match action.verb:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise Injected(self.name)
            case _:
                await asyncio.sleep(action.seconds)


_ALL: Final[dict[str, Failpoint]] = {}


def names() -> list[str]:
    """The failpoints of the modules that are loaded."""
    return sorted(_ALL)


def arm(setting: str) -> list[str]:
    """Arm what ``FAILPOINTS`` says, for a composition root to do once; the names armed. Raises ValueError."""
    armed = []
    for item in filter(None, (part.strip() for part in setting.split(","))):
        name, _, action = item.partition("=")
        if name not in _ALL:
            raise ValueError(f"{name[:60]}: is no failpoint of this role; there are {', '.join(names()) or 'none'}")
        _ALL[name].arm(action)
        armed.append(name)
    return armed
