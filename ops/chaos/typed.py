"""What a field of a case may hold, checked one by one: whatever JSON brings is taken or refused by name. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

MOST_TEXT: Final = 1000

Check = Callable[[Any], str]
"""What is wrong with this value, or nothing; ``.KEY: what`` where it is wrong further in."""


class BadCase(ValueError):
    """The file is no case; the message says which field is wrong."""


def number(least: float, most: float, *, above: bool = False, unit: str = "a number") -> Check:
    """From ``least`` (more than that: ``above``) to ``most``; NaN is neither."""
    said = f"must be {unit}, {'more than' if above else 'from'} {least:g} to {most:g}"

    def check(value: Any) -> str:
        good = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        return "" if good and not (above and value == least) else said

    return check


def whole(least: int, most: int, unit: str = "a whole number") -> Check:
    """A whole number in these bounds; 3.0 is none."""

    def check(value: Any) -> str:
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return "" if good else f"must be {unit}, from {least} to {most}"

    return check


def one_of(*those: Any) -> Check:
    """One of these, of the same type."""

    def check(value: Any) -> str:
        good = any(type(value) is type(each) and value == each for each in those)
        return "" if good else f"must be {' or '.join(map(str, those))}"

    return check


def text(value: Any) -> str:
    """Some text."""
    return string(value) if value != "" else "must say something"


def string(value: Any) -> str:
    """Text, or none."""
    return "" if isinstance(value, str) and len(value) <= MOST_TEXT else f"must be text, {MOST_TEXT} characters at most"


def matching(pattern: re.Pattern[str]) -> Check:
    """Text of this form."""
    return lambda value: (
        "" if isinstance(value, str) and pattern.fullmatch(value) else f"must be text of the form {pattern.pattern}"
    )


def each_value(check: Check, *, some: bool = False) -> Check:
    """An object whose values are all so; ``some``: it may not be empty."""

    def found(value: Any) -> str:
        if not isinstance(value, dict) or (some and not value):
            return "must be an object" + (" with something in it" if some else "")
        wrong = ((key, check(each)) for key, each in value.items())
        return next((f".{key}: {said}" for key, said in wrong if said), "")

    return found


def check_all(raw: Mapping[str, Any], checks: Mapping[str, Check], where: str) -> None:
    """Each field that is there by its check. Raises BadCase naming the first that is wrong."""
    for name, check in checks.items():
        if name in raw and (said := check(raw[name])):
            between = "" if said.startswith(".") else ": "
            raise BadCase(f"{where + '.' if where else ''}{name}{between}{said}")
