"""Every failpoint of the product, by the role that reaches it, and what leads the role there. Pure data.

A point of code that several roles run stands once for each of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ops import failpoints

ROLES: Final[dict[str, tuple[str, ...]]] = {
    "ingress": ("ingress.acceptance", "ingress.delivery", "ingress.relay"),
    "intake": ("ops.kafka.agents", "streams.intake"),
    "dispatch": ("ops.kafka.agents", "streams.dispatch", "streams.lane", "streams.outbox", "streams.stores.ledger"),
    "delay": ("streams.delay",),
    "sink": ("ops.kafka.agents", "sinks.postgres", "sinks.sink"),
}
"""The modules in which a role's failpoints stand; a test holds that there are no others."""

NOWHERE: Final = "127.0.0.1:9"
_AWAY: Final = {"KAFKA_BOOTSTRAP": NOWHERE}
_FORGETFUL: Final = {"DEDUP_WINDOW_S": "60", "LEDGER_WINDOW_S": "60"}
"""So short a memory holds its promises while nothing comes again later than PostgreSQL knows of it, no payment waits
for its permit longer than that (the ledger may forget a cancel meanwhile), and no command waits longer for intake to
come back: a seal that is older is refused. A dead member's session and a pause at the point are 35 s."""


@dataclass(frozen=True, slots=True)
class Point:
    """A failpoint as one role reaches it, on the ``nth`` time.

    ``settings`` are the role's while the point is armed. ``before`` are the settings of a life before that one, which
    brings about what the point's life needs to find; a life that names a failpoint ends there, another is ended.
    ``last``: only once all others are behind us, and what they delayed has been written.
    """

    name: str
    role: str
    nth: int = 3
    settings: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] | None = None
    last: bool = False

    @property
    def label(self) -> str:
        """As the command line names it: with its role, where several share it (``sink:agent.before-ack``)."""
        return f"{self.role}:{self.name}" if self.name.startswith("agent.") else self.name


def _of(role: str, *names: str, nth: int = 3) -> list[Point]:
    return [Point(name, role, nth) for name in names]


POINTS: Final = (
    *_of("ingress", "ingress.after-claim", "ingress.after-publish", "ingress.after-remember"),
    Point("ingress.before-outbox", "ingress", settings=_AWAY),
    Point("ingress.after-outbox", "ingress", settings=_AWAY),
    Point("ingress.after-behind", "ingress", 1, settings=_AWAY),
    *(Point(name, "ingress", 1, before=_AWAY) for name in (
        "relay.before-publish", "relay.after-publish", "relay.after-delete", "relay.after-commit")),
    *_of("intake", "intake.before-publish", "intake.after-publish", "intake.after-remember", "agent.before-ack",
         "agent.after-ack"),
    Point("intake.after-tombstones", "intake", 1, settings=_FORGETFUL, last=True),
    *_of("dispatch", "dispatch.before-intent", "ledger.before-append", "ledger.after-append", "dispatch.after-intent",
         "dispatch.after-intent-told", "dispatch.before-request", "dispatch.after-answer", "dispatch.after-entry",
         "dispatch.after-event", "agent.before-ack", "agent.after-ack"),
    *_of("dispatch", "dispatch.after-retry", "dispatch.after-letter", "dispatch.after-cancel", "dispatch.after-poison",
         nth=1),
    Point("dispatch.after-interrupted-told", "dispatch", 1, before={"FAILPOINTS": "dispatch.after-intent-told=kill@3"}),
    Point("ledger.after-tombstones", "dispatch", 1, settings=_FORGETFUL, last=True),
    *_of("delay", "delay.before-forward", "delay.after-forward", "delay.after-commit", nth=1),
    *_of("sink", "sink.after-begin", "sink.after-payments", "sink.after-events", "sink.after-letters",
         "sink.after-offset", "sink.after-commit", "agent.before-ack", "agent.after-ack"),
    *_of("sink", "sink.before-letter", "sink.after-letter", nth=1),
)  # fmt: skip


def declared() -> dict[str, set[str]]:
    """The failpoints that stand in the code, by role. Loads the roles' modules."""
    found: dict[str, set[str]] = {}
    for role, modules in ROLES.items():
        points = [
            value
            for module in modules
            for value in vars(importlib.import_module(module)).values()
            if isinstance(value, failpoints.Failpoint)
        ]
        found[role] = {point.name for point in points}
    return found
