"""What is wrong here, and how to mend it: one finding a line, about the machine and about the gateway that runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: a warning stops nothing that was asked for, a failure does."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``mend`` says what to do, in a sentence; empty where it is well."""

    name: str
    level: Level
    says: str
    mend: str = ""


def ok(name: str, says: str) -> Finding:
    """It is well."""
    return Finding(name, Level.OK, says)


def warn(name: str, says: str, mend: str) -> Finding:
    """Something is missing that not everybody needs."""
    return Finding(name, Level.WARN, says, mend)


def bad(name: str, says: str, mend: str) -> Finding:
    """It will not work."""
    return Finding(name, Level.FAIL, says, mend)
