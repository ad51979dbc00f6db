"""A history: what every actor of a run did and saw, in JSON lines on the machine's one monotonic clock.

Each actor appends to a file of its own, one ``write`` a line with O_APPEND, so a kill loses at most the line in hand.
An operation is two entries: INVOKE before it is tried, then what its client learned: OK, FAIL (it did not happen), or
INFO (it may have happened). One that has no second entry, its client having died, may have happened, too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self


class Kind(StrEnum):
    """What an entry tells; a closed set."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"
    FAULT = "fault"
    HEAL = "heal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line. ``at_ns`` is CLOCK_MONOTONIC, ``of`` names the operation or the fault, ``data`` what belongs to it."""

    kind: Kind
    at_ns: int
    actor: str
    of: str
    data: dict[str, Any] = field(default_factory=dict)


class Writer:
    """Appends entries to one file; a context manager."""

    def __init__(self, path: Path, actor: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._path = path
        self._actor = actor
        self._clock = clock
        self._handle = -1

    def __enter__(self) -> Self:
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def write(self, kind: Kind, of: str, **data: Any) -> int:
        """Append an entry; its moment. Raises OSError: then the run is worth nothing."""
        at_ns = self._clock()
        line = json.dumps({"kind": kind, "at_ns": at_ns, "actor": self._actor, "of": of, "data": data}) + "\n"
        os.write(self._handle, line.encode())
        return at_ns


class Torn(ValueError):
    """A line within a history that cannot be read; the message names file and line."""


def read(paths: Iterable[Path]) -> Iterator[Entry]:
    """The entries of these files, file by file. The last line of a killed actor may be cut and is left out.

    Raises Torn for any other line that is none.
    """
    for path in paths:
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                raw = json.loads(line)
                yield Entry(kind=Kind(raw.pop("kind")), **raw)
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                if number == len(lines):  # no newline at its end: the actor died while it wrote
                    return
                raise Torn(f"{path.name} line {number}: {type(error).__name__}") from error


_ORDER: Final = {Kind.OK: 2, Kind.FAIL: 2, Kind.INFO: 1, Kind.INVOKE: 0}


def learned(entries: Iterable[Entry]) -> dict[str, tuple[Entry, Entry | None]]:
    """By operation, its invocation and what its client learned; None where the client did not live to say.

    Raises ValueError for an end without a beginning, or a second end.
    """
    begun: dict[str, Entry] = {}
    ended: dict[str, Entry] = {}
    for entry in sorted(
        (each for each in entries if each.kind in _ORDER), key=lambda each: (each.at_ns, _ORDER[each.kind])
    ):
        if entry.kind is Kind.INVOKE:
            if entry.of in begun:
                raise ValueError(f"operation {entry.of} is begun twice")
            begun[entry.of] = entry
        elif entry.of not in begun or entry.of in ended:
            raise ValueError(f"operation {entry.of} ends without a beginning, or twice")
        else:
            ended[entry.of] = entry
    return {of: (entry, ended.get(of)) for of, entry in begun.items()}
