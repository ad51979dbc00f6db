"""Many seeds over the machine's cores."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from ops.chaos.checker import Violation
from ops.chaos.sim import fallback
from ops.chaos.sim.world import Life, live

CHUNK = 50


@dataclass(frozen=True, slots=True)
class Told:
    """What is kept of a life: which promises it broke, the provider's calls, its virtual seconds."""

    seed: int
    violations: tuple[Violation, ...]
    calls: int
    seconds: float


def one(seed: int) -> Told:
    """Live one life, without its logs."""
    found = quiet(seed)
    return Told(seed, tuple(found.violations), len(found.evidence.arrivals) if found.evidence else 0, found.seconds)


def one_of_fallback(seed: int) -> Told:
    """Live one life of a lane that moves between Redis and PostgreSQL, without its logs."""
    found = quiet_fallback(seed)
    return Told(seed, tuple(found.violations), len(found.calls), found.seconds)


def quiet(seed: int) -> Life:
    """Live one life with the product's logs off."""
    _silence()
    return live(seed)


def quiet_fallback(seed: int) -> fallback.Life:
    """As :func:`quiet`, of ``ops.chaos.sim.fallback``."""
    _silence()
    return fallback.live(seed)


def _silence() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _freeze() -> None:
    """What is imported stays: the collector, which a life keeps busy, need not walk through it again and again."""
    gc.collect()
    gc.freeze()


def every(
    first: int, count: int, jobs: int = 0, *, of: Callable[[int], Told] = one, chunk: int = CHUNK
) -> Iterator[Told]:
    """The lives of these seeds as they end, on ``jobs`` processes (0: one a core)."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs or os.cpu_count() or 1, _freeze) as pool:
        yield from pool.imap_unordered(of, range(first, first + count), chunk)
