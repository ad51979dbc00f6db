"""When each offset of a topic was reached: so the place of a record follows from when it came. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Final

POINTS: Final = 2048

Moment = tuple[float, float]
"""Epoch milliseconds, and where the partition ended then."""


class History:
    """Where the partitions of a topic ended: a bounded number of moments, coarser the older they are."""

    def __init__(self) -> None:
        self._points: list[tuple[int, tuple[float, ...]]] = []

    def add(self, wall_ms: int, ends: Sequence[float]) -> None:
        """Where the partitions end now. A clock set back adds nothing."""
        found = (wall_ms, tuple(ends))
        if self._points and wall_ms <= self._points[-1][0]:
            return
        if len(self._points) > 1 and self._points[-1][1] == self._points[-2][1] == found[1]:
            self._points[-1] = found  # nothing came: the stretch is only longer
        else:
            self._points.append(found)
        if len(self._points) > POINTS:
            half = len(self._points) // 2
            self._points = [*self._points[:half:2], *self._points[half:]]

    def offset(self, partition: int, wall_ms: float, first: Moment | None, last: Moment) -> float:
        """Where the partition ended at this moment. ``first`` and ``last`` are known points before and after ours."""
        points: list[Moment] = [last]
        place = bisect.bisect_right(self._points, wall_ms, key=lambda point: point[0])
        around = self._points[max(0, place - 1) : place + 1]
        points = [*((at, ends[partition]) for at, ends in around), *points]
        if first is not None and place == 0:
            points.insert(0, first)
        before = [point for point in points if point[0] <= wall_ms]
        after = [point for point in points if point[0] > wall_ms]
        if not before:
            return after[0][1]
        if not after:
            return before[-1][1]
        (began, low), (ended, high) = before[-1], after[0]
        return low + (high - low) * (wall_ms - began) / (ended - began)
