"""Sliding windows over the moments of calls. Pure; moments are whole numbers of one unit, of one clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise


def most(moments: Iterable[int], window: int) -> int:
    """The most moments in any window ``[t, t + window)``."""
    ordered = sorted(moments)
    found = first = 0
    for last, at in enumerate(ordered):
        while at - ordered[first] >= window:
            first += 1
        found = max(found, last - first + 1)
    return found


def over(moments: Iterable[int], limit: int, window: int) -> int:
    """How many calls came less than a window after the one ``limit`` calls before them."""
    ordered = sorted(moments)
    return sum(1 for early, late in zip(ordered, ordered[limit:], strict=False) if late - early < window)


def tightest(moments: Iterable[int], limit: int) -> int | None:
    """The shortest time from any call to the one ``limit`` calls later; None where there are not so many."""
    ordered = sorted(moments)
    return min((late - early for early, late in zip(ordered, ordered[limit:], strict=False)), default=None)


def busy(arrivals: Iterable[int], departures: Iterable[int], least: int = 1) -> list[tuple[int, int]]:
    """The spans in which at least ``least`` were there, having arrived and not departed; of no length, none."""
    changes = sorted([(at, 1) for at in arrivals] + [(at, -1) for at in departures])
    spans: list[tuple[int, int]] = []
    there, began = 0, 0
    for at, change in changes:
        before, there = there, there + change
        if before < least <= there:
            began = at
        elif there < least <= before:
            spans.append((began, at))
    return joined(spans)


def joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same spans in order, those that touch as one, those of no length left out."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(span for span in spans if span[1] > span[0]):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def used(moments: Iterable[int], spans: Sequence[tuple[int, int]], limit: int, window: int) -> float | None:
    """Of the calls that the limit allows in these spans, the share that was made; None without any time in them."""
    time = sum(end - begin for begin, end in spans)
    if not time:
        return None
    ordered = sorted(moments)
    calls = place = 0
    for begin, end in spans:
        while place < len(ordered) and ordered[place] < begin:
            place += 1
        while place < len(ordered) and ordered[place] < end:
            calls += 1
            place += 1
    return calls * window / (limit * time)


def longest_pause(moments: Iterable[int], spans: Sequence[tuple[int, int]]) -> int:
    """The longest time without a call within a span."""
    ordered = sorted(moments)
    found = 0
    for begin, end in spans:
        inside = [begin, *(at for at in ordered if begin < at < end), end]
        found = max(found, *(after - before for before, after in pairwise(inside)))
    return found
