"""JSON from strangers: bounded depth, no duplicate keys, no NaN; for the HTTP body and for JSON records alike."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

from schemas.command import MAX_BYTES, MAX_DEPTH

_LONGEST_NUMBER: Final = 40
_STRUCTURE: Final = re.compile(rb'[\[{\]}]|"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""Brackets, and whole strings, whose brackets do not count."""


class InvalidJson(ValueError):
    """Bytes that are not acceptable JSON; the message never repeats their content."""


def loads(data: bytes) -> Any:
    """The value in these bytes. Raises InvalidJson: too large, not UTF-8, not JSON, too deep, a key twice."""
    if len(data) > MAX_BYTES:
        raise InvalidJson(f"is larger than {MAX_BYTES} bytes")
    _check_depth(data)
    try:
        return _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidJson("is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise InvalidJson(f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise InvalidJson("is nested too deep") from error


def _check_depth(data: bytes) -> None:
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for found in _STRUCTURE.finditer(data):
        if found[0] in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidJson(f"is nested deeper than {MAX_DEPTH}")
        elif found[0] in b"]}":
            depth -= 1


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidJson("names a field twice")
    return found


def _refuse(_: str) -> NoReturn:
    raise InvalidJson("holds NaN or Infinity")


def _int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise InvalidJson("holds a number that is too long")
    return int(text)


def _float(text: str) -> float:
    if len(text) > _LONGEST_NUMBER:
        raise InvalidJson("holds a number that is too long")
    number = float(text)
    if math.isinf(number):
        raise InvalidJson("holds a number that is too large")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_no_twins, parse_constant=_refuse, parse_int=_int, parse_float=_float
)
"""Made once: ``json.loads`` makes one for each text that it reads with such hooks."""
