"""The matrix of failpoints: every role dies, waits or fails at each of its points, under load; none may be left out.

A role's lives follow one another: each has one point armed, and its end is the beginning of the next. Roles, and the
lanes' dispatchers, which share their role's points, go on side by side. The verdict is the checker's, over all of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from ops.chaos.actors import Role
from ops.chaos.history import Kind, Writer
from ops.chaos.points import POINTS, ROLES, Point
from ops.chaos.rig import Rig
from ops.kafka.clients import Message, Publisher, PublishError
from schemas import topics

HIT_S: Final = 75.0
"""How long a life may take to reach its point: a start, the dead member's session, and what leads there."""
BEFORE_S: Final = 8.0
"""How long a life lasts that only brings about what the next one needs."""
PAUSE_S: Final = 20.0
AFTER_S: Final = 3.0
LOOK_S: Final = 0.1
POISON_S: Final = 1.0
CAUGHT_UP_S: Final = 15.0

ACTIONS: Final = {"kill": "kill", "raise": "raise", "pause": f"pause:{PAUSE_S:g}"}


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a role: its settings, and what its log says once the point is reached; ``None``: it has none."""

    settings: Mapping[str, str]
    mark: str | None
    label: str


def lives(points: Sequence[Point], action: str) -> list[Life]:
    """The lives that take a role through these points, one after another. Pure."""
    found: list[Life] = []
    for point in points:
        if point.before is not None:
            armed = point.before.get("FAILPOINTS")
            mark = f"failpoint {armed.partition('=')[0]}: " if armed else None
            found.append(Life(point.before, mark, f"before {point.label}"))
        settings = {**point.settings, "FAILPOINTS": f"{point.name}={ACTIONS[action]}@{point.nth}"}
        found.append(Life(settings, f"failpoint {point.name}: ", point.label))
    return found


def shared(role: str, slots: int, only: Callable[[Point], bool] = lambda _: True) -> list[list[Point]]:
    """A role's points, dealt out to so many processes. Pure."""
    mine = [point for point in POINTS if point.role == role and only(point)]
    return [mine[slot::slots] for slot in range(slots)]


@dataclass(slots=True)
class Matrix:
    """Takes the roles of a rig through their points. ``missed`` names those that were not reached in time."""

    rig: Rig
    action: str
    only: Callable[[Point], bool] = lambda _: True
    hit: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    async def run(self) -> None:
        """All points of all roles; returns when the last one is behind us."""
        with Writer(self.rig.folder / "faults-matrix.jsonl", "matrix") as writer:
            feeding = asyncio.create_task(self._poison())
            try:
                await self._round(writer, lambda point: not point.last and self.only(point))
                await asyncio.gather(*(role.ready() for role in self.rig.roles))
                await asyncio.sleep(CAUGHT_UP_S)
                await self._round(writer, lambda point: point.last and self.only(point))
            finally:
                feeding.cancel()
                await asyncio.wait({feeding})

    async def _round(self, writer: Writer, only: Callable[[Point], bool]) -> None:
        async with asyncio.TaskGroup() as group:
            for name in ROLES:
                roles = [each for each in self.rig.roles if each.name == name or each.name.startswith(f"{name}-")]
                for role, points in zip(roles, shared(name, len(roles), only), strict=True):
                    group.create_task(self._one(role, lives(points, self.action), writer))

    async def _one(self, role: Role, todo: list[Life], writer: Writer) -> None:
        if not todo:
            return
        role.lives = deque(life.settings for life in todo)
        role.places.clear()
        await self._end(role)  # the life it has is of no use
        for number, life in enumerate(todo, 1):
            of = f"matrix-{next(self._numbers)}"
            reached = await self._reached(role, life, number)
            writer.write(Kind.FAULT, of, deed=f"{self.action} at {role.name.partition('-')[0]}'s points", at=life.label)
            if life.mark is not None:
                (self.hit if reached else self.missed).append(life.label)
            if reached and "pause" in life.settings.get("FAILPOINTS", ""):
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(AFTER_S)
            lives_on = len(role.places) == number and role.pid is not None  # a quick one is followed by the next
            if lives_on and (number < len(todo) or not reached):
                await self._end(role)
            writer.write(Kind.HEAL, of, deed=f"{self.action} at {role.name.partition('-')[0]}'s points")

    async def _end(self, role: Role) -> None:
        role.kill()
        await role.revive()

    async def _reached(self, role: Role, life: Life, number: int) -> bool:
        """Wait until the log of this life says so; that of all lives is one."""
        end = time.monotonic() + HIT_S
        while len(role.places) < number and time.monotonic() < end:
            await asyncio.sleep(LOOK_S)
        if life.mark is None:
            await role.ready()
            await asyncio.sleep(BEFORE_S)
            return True
        while time.monotonic() < end:
            if life.mark.encode() in self._said(role, number):
                return True
            await asyncio.sleep(LOOK_S)
        return False

    def _said(self, role: Role, number: int) -> bytes:
        begin, end, *_ = [*role.places[number - 1 : number + 1], None, None]
        with suppress(OSError):
            return role.log.read_bytes()[begin:end] if begin is not None else b""
        return b""

    async def _poison(self) -> None:
        """Put what nobody can read where only we write: a lane's queues, and the events."""
        names = [topics.EVENTS, *(name for lane in self.rig.case.lanes for name in topics.queue_topics(lane))]
        async with Publisher(self.rig.kafka) as publisher:
            while True:
                with suppress(PublishError):
                    await publisher.publish([Message(name, b"poison", b"\x00poison") for name in names])
                await asyncio.sleep(POISON_S)
