"""What a worker tells twice a second over Redis: how it does, and how far it is. Best effort.

One hash for each lane's dispatch and one for intake, one field for each worker. A beat that does not change is of a
worker that is gone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

BEAT_S: Final = 0.5
GONE_S: Final = 5.0
"""A worker whose beat has not changed for so long is gone."""
INTAKE: Final = "pulse:intake"
_MAX_BYTES: Final = 1_000_000


class InvalidPulse(ValueError):
    """Bytes that are no pulse."""


@dataclass(frozen=True, slots=True)
class Head:
    """How many records of a topic's partition are finished, and when the first that is not was accepted, if known."""

    offset: int
    accepted_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Pulse:
    """One worker's word. ``limiter``: whether permits can be had; ``in_hand``: records it works on or waits with."""

    beat: int
    breaker_open: bool = False
    limiter: bool = True
    in_hand: int = 0
    heads: dict[tuple[str, int], Head] = field(default_factory=dict)
    ahead: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of intake, by lane and merchant: how much a merchant has waiting, as ``streams.share`` counts it."""


def dispatch(lane: str) -> str:
    """The hash of a lane's dispatch."""
    return f"pulse:dispatch:{lane}"


def encode(pulse: Pulse) -> bytes:
    """JSON."""
    heads = [[topic, part, head.offset, head.accepted_at_ms] for (topic, part), head in pulse.heads.items()]
    plain = {"beat": pulse.beat, "breaker_open": pulse.breaker_open, "limiter": pulse.limiter, "in_hand": pulse.in_hand}
    return json.dumps({**plain, "heads": heads, "ahead": pulse.ahead}, separators=(",", ":")).encode()


def decode(raw: bytes) -> Pulse:
    """The pulse in these bytes. Raises InvalidPulse, never anything else."""
    if len(raw) > _MAX_BYTES:
        raise InvalidPulse("too large")
    try:
        found: dict[str, Any] = json.loads(raw)
        heads = {
            (str(topic), int(part)): Head(int(offset), None if at_ms is None else int(at_ms))
            for topic, part, offset, at_ms in found["heads"]
        }
        ahead = {
            str(lane): {str(merchant): float(many) for merchant, many in waiting.items()}
            for lane, waiting in found["ahead"].items()
        }
        return Pulse(
            int(found["beat"]), bool(found["breaker_open"]), bool(found["limiter"]), int(found["in_hand"]), heads, ahead
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise InvalidPulse(type(error).__name__) from error
