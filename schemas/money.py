"""Money: decimal strings at the edge, integer minor units inside, each currency with its own exponent (ISO 4217)."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from iso4217 import Currency

MAX_MINOR: Final = 10**15
"""Largest amount taken, in minor units: fits a 64-bit integer and a JavaScript number with room to spare."""

_DECIMAL = re.compile(r"(?P<whole>[0-9]{1,18})(?:\.(?P<fraction>[0-9]{1,18}))?", re.ASCII)


class MoneyError(ValueError):
    """An amount or currency that cannot be charged; ``field`` is ``amount`` or ``currency``."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


@cache
def _exponents() -> dict[str, int]:
    return {item.code: item.exponent for item in Currency if item.exponent is not None}


def exponent(currency: str) -> int:
    """Digits after the decimal point of a currency (JPY 0, USD 2, KWD 3). Raises MoneyError for an unknown code."""
    try:
        return _exponents()[currency]
    except KeyError:
        raise MoneyError("currency", "is not an ISO 4217 currency code that can be charged") from None


def to_minor(amount: str, currency: str) -> int:
    """``("12.50", "USD") -> 1250``. Raises MoneyError: not a plain decimal, too many decimals, zero, too large."""
    digits = exponent(currency)
    match = _DECIMAL.fullmatch(amount)
    if match is None:
        raise MoneyError("amount", "must be a plain decimal string such as '12.50'")
    fraction = match["fraction"] or ""
    if len(fraction) > digits:
        raise MoneyError("amount", f"has more decimals than {currency} allows ({digits})")
    minor = int(match["whole"]) * 10**digits + int(fraction.ljust(digits, "0") or "0")
    return check_minor(minor)


def check_minor(amount_minor: int) -> int:
    """Pass a chargeable amount on unchanged. Raises MoneyError unless ``0 < amount_minor <= MAX_MINOR``."""
    if amount_minor <= 0:
        raise MoneyError("amount", "must be greater than zero")
    if amount_minor > MAX_MINOR:
        raise MoneyError("amount", f"must be at most {MAX_MINOR} minor units")
    return amount_minor


def to_decimal(amount_minor: int, currency: str) -> str:
    """``(1250, "USD") -> "12.50"``: the inverse of :func:`to_minor`."""
    digits = exponent(currency)
    if digits == 0:
        return str(amount_minor)
    return f"{amount_minor // 10**digits}.{amount_minor % 10**digits:0{digits}d}"
