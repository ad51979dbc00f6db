"""What this process has accepted into one line of a lane, between two looks at it. Pure.

Within a second a burst spreads unevenly over partitions, and eight times as unevenly over places in the queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

EVERY_MS: Final = 50


class Joined:
    """Counts by partition, and what they were every so often since the last look."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        """Ever."""
        self.total = 0
        self._base: list[int] = []
        self._marks: list[tuple[int, list[int]]] = []

    def add(self, partition: int, wall_ms: int) -> None:
        """One more; nothing counts before the line was looked at."""
        if partition < len(self.counts):
            self.counts[partition] += 1
            self.total += 1
            if not self._marks or wall_ms - self._marks[-1][0] >= EVERY_MS:
                self._marks.append((wall_ms, list(self.counts)))

    @property
    def since(self) -> list[int]:
        """Those that the last look did not see, by partition."""
        return [now - then for now, then in zip(self.counts, self._base, strict=True)]

    def looked(
        self, counted: Sequence[int], ended: Sequence[float], ends: Sequence[float], wall_ms: int
    ) -> Iterator[tuple[int, list[float]]]:
        """The line was looked at, as the counts were ``counted``: where its partitions ended at moments before that.

        ``ended`` and ``ends`` are those of the last look and of this one.
        """
        if len(self.counts) != len(ends):
            self.counts, self._base, self._marks = [0] * len(ends), [0] * len(ends), []
            return
        steps = [
            (end - before) / (now - then) if now > then else 0.0
            for before, end, then, now in zip(ended, ends, self._base, counted, strict=True)
        ]
        for at, counts in self._marks:
            if at < wall_ms:
                yield (
                    at,
                    [
                        min(end, before + step * (count - then))
                        for before, end, step, count, then in zip(ended, ends, steps, counts, self._base, strict=True)
                    ],
                )
        self._base, self._marks = list(counted), []
