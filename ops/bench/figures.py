"""What is measured becomes figures: percentiles, ratios of one run, calls in a sliding window. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SECOND_NS: Final = 1_000_000_000
_LARGE: Final = 100
"""From here on a value is shown without decimals."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should be: at least, or at most ``bound``, or less than it where it is ``strict``."""

    bound: float
    at_least: bool = False
    strict: bool = False

    def met(self, value: float) -> bool:
        """Whether this value is as it should be; NaN never is."""
        if value == self.bound:
            return not self.strict
        return value > self.bound if self.at_least else value < self.bound

    def text(self, unit: str) -> str:
        """``>= 0.7 x``."""
        sign = (">" if self.at_least else "<") + ("" if self.strict else "=")
        return f"{sign} {show(self.bound, unit)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: a value of each run, of which the median counts, or the worst for a promise."""

    bench: str
    name: str
    values: Sequence[float]
    unit: str
    aim: Aim | None = None
    worst: bool = False

    @property
    def value(self) -> float:
        """The value that is held against the aim."""
        if not self.values:
            return math.nan
        if self.worst:
            return min(self.values) if self.aim and self.aim.at_least else max(self.values)
        return statistics.median(self.values)

    def row(self) -> tuple[str, str, str, str, str, str]:
        """The cells: bench, figure, value, least to most of the runs, aim, whether it is met."""
        spread = f"{number(min(self.values))} .. {number(max(self.values))}" if len(self.values) > 1 else ""
        aim, met = "", ""
        if self.aim is not None:
            aim, met = self.aim.text(self.unit), "yes" if self.aim.met(self.value) else "NO"
        return self.bench, self.name, show(self.value, self.unit), spread, aim, met


def number(value: float) -> str:
    """Three digits that matter, thousands apart: ``12,345``, ``0.70``."""
    if math.isnan(value):
        return "?"
    if value == int(value) or abs(value) >= _LARGE:
        return f"{round(value):,}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"  # noqa: PLR2004 - three digits


def show(value: float, unit: str) -> str:
    """A value with its unit."""
    return f"{number(value)} {unit}".strip()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all values do not exceed (nearest rank); NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Run by run what ours is of theirs: what disturbs the machine for a while disturbs both of a run."""
    return [mine / other if other else math.nan for mine, other in zip(ours, theirs, strict=True)]


@dataclass(frozen=True, slots=True)
class Span:
    """From the end of the warm-up to the last event: moments in seconds, and the events between them."""

    begin: float
    end: float
    events: int

    @property
    def rate(self) -> float:
        """Events a second; NaN where there is no time between them."""
        return self.events / (self.end - self.begin) if self.end > self.begin else math.nan


def span(times_s: Sequence[float], warm_up: float = 0.1) -> Span:
    """The span of these events; the warm-up is a share of them."""
    ordered = sorted(times_s)
    if not ordered:
        return Span(0.0, 0.0, 0)
    first = int(len(ordered) * warm_up)
    return Span(ordered[first], ordered[-1], len(ordered) - 1 - first)


def rate_of_counts(samples: Sequence[tuple[float, int]], warm_up: float = 0.1) -> float:
    """Events a second out of samples ``(seconds, events so far)``, past the warm-up, until the last event."""
    total = max((count for _, count in samples), default=0)
    begin = next(((at, count) for at, count in samples if count >= total * warm_up and count), None)
    end = next(((at, count) for at, count in samples if count == total), None)
    if begin is None or end is None or end[0] <= begin[0]:
        return math.nan
    return (end[1] - begin[1]) / (end[0] - begin[0])


def between(samples: Sequence[tuple[float, float]], at: float) -> float:
    """The reading at this moment, on the straight line between the samples ``(moment, reading)`` around it.

    Before the first sample and after the last it is theirs; NaN without any.
    """
    if not samples:
        return math.nan
    if at <= samples[0][0]:
        return samples[0][1]
    for (before, low), (after, high) in pairwise(samples):
        if before <= at <= after:
            return low + (high - low) * (at - before) / (after - before) if after > before else high
    return samples[-1][1]


def shares_used(arrivals_ns: Sequence[int], begin_ns: int, end_ns: int, slices: int, limit: int) -> list[float]:
    """Of ``limit`` calls a second, the share used in each of so many equal slices of the time.

    A slice goes from a call to a call whole groups of ``limit`` later, so its edges cut no group; calls beyond
    ``end_ns`` close the last one. Where they are missing, the slice lasts to its end and the share is what was used.
    """
    ordered = sorted(at for at in arrivals_ns if at >= begin_ns)
    edges = [begin_ns + (end_ns - begin_ns) * part // slices for part in range(slices + 1)]
    marks: list[int] = []
    for edge in edges:
        mark = sum(1 for at in ordered if at < edge)
        marks.append(math.ceil(mark / limit) * limit)
    found: list[float] = []
    for number_of, (start, stop) in enumerate(pairwise(marks)):
        if start >= len(ordered):
            found.append(0.0)
            continue
        until = ordered[stop] if stop < len(ordered) else max(edges[number_of + 1], ordered[-1])
        calls = min(stop, len(ordered)) - start
        found.append(calls / limit / ((until - ordered[start]) / SECOND_NS) if until > ordered[start] else 0.0)
    return found
