"""Lanes: one provider account each, with its own limit, breaker, topics and consumer group."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

LANE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)

SANDBOX: Final = "simulator"
KEYLESS_SANDBOX: Final = "simulator-keyless"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One provider account. ``limit`` calls are allowed in any ``window_ms`` on the provider's clock."""

    name: str
    provider: str = SANDBOX
    url: str = ""
    limit: int = 2
    window_ms: int = 1000
    guard_ms: int = 20
    call_timeout_ms: int = 10_000
    max_wait_s: int | None = None
    """A create whose call would come later than this is refused; None: it is queued however long that takes."""

    @property
    def sandbox(self) -> bool:
        """Whether its provider is the simulator: for payments in test mode, and for those only."""
        return self.provider in {SANDBOX, KEYLESS_SANDBOX}


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("LANES names something twice")
    return found


def _check(lane: Lane) -> None:
    """Raises ValueError naming the lane and the field."""
    for word in ("provider", "url"):
        if not isinstance(getattr(lane, word), str):
            raise ValueError(f"lane {lane.name!r}: {word} must be a string")  # noqa: TRY004 - all that is wrong with LANES is one error
    for number in ("limit", "window_ms", "guard_ms", "call_timeout_ms"):
        value = getattr(lane, number)
        if not isinstance(value, int) or isinstance(value, bool) or value < (0 if number == "guard_ms" else 1):
            raise ValueError(f"lane {lane.name!r}: {number} must be a positive whole number")
    if lane.max_wait_s is not None and (type(lane.max_wait_s) is not int or lane.max_wait_s < 1):
        raise ValueError(f"lane {lane.name!r}: max_wait_s must be a positive whole number, or absent")


def parse_lanes(text: str, *, default_url: str = "") -> dict[str, Lane]:
    """Read ``{"name": {"provider": ..., "url": ..., "limit": ...}, ...}``; the first lane is the default one.

    A lane without a url gets ``default_url``.

    Raises ValueError with what is wrong, naming the lane.
    """
    try:
        raw = json.loads(text, object_pairs_hook=_no_twins)
    except json.JSONDecodeError as error:
        raise ValueError(f"LANES is not JSON: {error}") from error
    if not isinstance(raw, dict) or not raw:
        raise ValueError("LANES must be a JSON object with at least one lane")
    lanes: dict[str, Lane] = {}
    for name, fields in raw.items():
        if not LANE_NAME.fullmatch(name):
            raise ValueError(f"lane {name!r}: a name is {LANE_NAME.pattern}")
        try:
            lane = Lane(name=name, **{"url": default_url, **fields})
        except TypeError as error:
            raise ValueError(f"lane {name!r}: {error}") from error
        _check(lane)
        lanes[name] = lane
    return lanes
