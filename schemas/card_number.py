"""Card numbers in texts: found wherever they stand, so that they are refused and never stored (PCI DSS 3.5).

What looks like one by chance must not be refused: of random digits one stretch in ten passes the Luhn check, so order
numbers, dates, timestamps and UUIDs are told apart by what issuers hand out (ISO/IEC 7812-1) and by their own shapes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

SHORTEST: Final = 13
LONGEST: Final = 19
_SMALLEST_FIRST: Final = 4
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
"""A digit, doubled, and its digits added."""

_RUN = re.compile(r"\d(?:(?:\s{1,3}|\s?[-_./:*|\u2010-\u2015\u2212]\s?)?\d){12,}")
"""Digits, and between two of them at most what people put between the groups of a card's number."""

_GROUP = re.compile(r"\d+")

_ISSUED = re.compile(
    r"[3-9]\d*"
    r"|2(?:20[0-4]|22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12,15}"  # Mir and Mastercard; 2026... is a date
    r"|1\d{14}"  # UATP
)
"""What some issuer may have handed out, for digits that stand on their own."""

_BRANDED = re.compile(
    r"4\d{15}"
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}"
    r"|3(?:0[0-59]|[689]\d)\d{11}"
    r"|35(?:2[89]|[3-8]\d)\d{12}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|62\d{14}"
)
"""The large brands at their usual length, for digits in the middle of longer ones."""

_SCHEMES = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"  # Visa
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"  # Mastercard
    r"|3[47]\d{13}|3(?:0[0-59]|[689]\d)\d{11}"  # American Express, Diners
    r"|(?:35(?:2[89]|[3-8]\d)|6011|64[4-9]\d|6[25]\d\d|220[0-4])\d{12,15}"  # JCB, Discover, UnionPay, RuPay, Mir
    r"|(?:50(?:18|20|38)|5893|6(?:304|759|76[1-3]))\d{9,15}"  # Maestro
    r"|50(?:6(?:099|1[0-8]\d|19[0-8])|78(?:6[5-9]|[7-9]\d)|79(?:[0-5]\d|6[0-4]))\d{10}(?:\d{2,3})?"  # Verve
    r"|(?:60|8[12])\d{14}|508\d{13}|(?:9792|8600|9860)\d{12}"  # RuPay, Troy, Uzcard, Humo
)
"""What the schemes hand out, by first digits and length. UATP's airline accounts are left out: they are 15 digits that
begin with 1, as half of the world's order numbers are."""

_OPAQUE = re.compile(
    r"(?<![0-9A-Za-z])(?=[0-9-]{0,36}[a-fA-F])"  # a UUID or a hash (MD5, SHA-1, 256, 512), not of digits only
    r"(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|[0-9a-fA-F]{32}(?:[0-9a-fA-F]{8}|[0-9a-fA-F]{32}|[0-9a-fA-F]{96})?)(?![0-9A-Za-z])"
    r"|(?<![0-9])1[5-9][0-9]{11}(?:[0-9]{3}){0,2}(?![0-9])"  # an epoch time, 2017 to 2033, in ms, us or ns
    r"|(?<![0-9])(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])(?![0-9])"  # a date, with its time
    r"(?: (?:[01][0-9]|2[0-3])(?::[0-5][0-9]){1,2}(?:\.[0-9]{1,9})?(?![0-9]))?"
)
"""Shapes whose digits are no card's."""

_BLANK: Final = frozenset("\u115f\u1160\u2800")
"""Letters and symbols that show nothing: Hangul's fillers (the compatibility ones become U+1160), Braille's blank."""

_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_NO_DIGITS: Final = bytes(set(range(256)) - set(b"0123456789"))
_LOOKED_INTO: Final = 16 * 1024


def holds_card_number(text: str) -> bool:
    """Whether a text holds 13 to 19 digits that pass the Luhn check and that an issuer may have handed out.

    Groups may be separated; all of Unicode's digits count, and what is invisible between them does not. Linear.
    """
    if text.isascii():
        if _few_digits(text):
            return False
    else:
        text = "".join(
            char
            for char in unicodedata.normalize("NFKC", text)
            if char not in _BLANK and unicodedata.category(char) not in {"Cf", "Mn", "Mc", "Me"}
        )
    if _RUN.search(text) is None:
        return False
    return any(_holds(run.group()) for run in _RUN.finditer(_OPAQUE.sub("~", text)))


def _few_digits(text: str) -> bool:
    """Whether an ASCII text has fewer digits than a card number: nearly all have. A search takes ten times as long."""
    return len(text) < SHORTEST or len(text.encode().translate(None, _NO_DIGITS)) < SHORTEST


def key_holds_card_number(key: str) -> bool:
    """Whether an idempotency key is a card number, or begins one of its groups of digits with one.

    A key must not be refused by chance, as the text's rule above does to one order number of sixteen digits in ten. So
    only what a scheme hands out counts, whole or at the front of longer digits (a card and its expiry date): one random
    number in thirty, and none that begins with 0 or 1. A hash instead of the refusal would not do: the payment's id is
    one already, without a secret, and all numbers of an issuer are tried in minutes (PCI DSS 3.5.1.1).
    """
    if (key.isascii() and _few_digits(key)) or _RUN.search(key) is None:
        return False
    return any(_is_card(_GROUP.findall(run.group())) for run in _RUN.finditer(_OPAQUE.sub("~", key)))


def may_hold_card_number(value: bytes) -> bool:
    """Whether bytes that nobody could read as a record may hold one; rather once too often. See the text's rule above.

    NUL bytes and JSON's escapes are looked through; in more than 16 KiB any 13 digits count, which bounds the time.
    """
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value.decode("utf-8", "replace").replace("\0", ""))
    if len(text) > _LOOKED_INTO:
        return _RUN.search(text) is not None
    return holds_card_number(text)


def _holds(run: str) -> bool:
    groups = _GROUP.findall(run)
    digits = "".join(str(int(char)) for group in groups for char in group)
    edges = {edge: place for place, edge in enumerate((0, *accumulate(len(group) for group in groups)))}
    for start, end in _passing(digits):
        whole = start in edges and end in edges and _grouped(groups[edges[start] : edges[end]])
        if (_ISSUED if whole else _BRANDED).fullmatch(digits, start, end):
            return True
    return False


def _is_card(groups: list[str]) -> bool:
    """Whether groups side by side are a card number as printed, or one of them begins with one."""
    for start, first in enumerate(groups):
        digits = ""
        for end, group in enumerate(groups[start : start + LONGEST], start + 1):
            digits += group
            if len(digits) > LONGEST:
                break
            if _SCHEMES.fullmatch(digits) and _luhn(digits) and _grouped(groups[start:end]):
                return True
        fronts = (first[:size] for size in (14, 15, 16) if size < len(first))
        if any(_BRANDED.fullmatch(front) and _luhn(front) for front in fronts):
            return True
    return False


def _luhn(digits: str) -> bool:
    return sum(_DOUBLED[int(char)] if place % 2 else int(char) for place, char in enumerate(reversed(digits))) % 10 == 0


def _grouped(groups: list[str]) -> bool:
    """Whether the groups are as cards print them: 4 4 4 4, 4 6 5, 6 13, 8 8, or all but the last of one size."""
    sizes = [len(group) for group in groups]
    return sizes[0] >= _SMALLEST_FIRST or len(set(sizes[:-1])) == 1


def _passing(digits: str) -> Iterator[tuple[int, int]]:
    """The stretches of 13 to 19 digits that pass the Luhn check, by running sums: 500 digits hold 3,400 of them."""
    sums = ([0], [0])  # sums[parity]: with the digits at places of that parity doubled
    for place, char in enumerate(digits):
        sums[place % 2].append(sums[place % 2][-1] + _DOUBLED[int(char)])
        sums[1 - place % 2].append(sums[1 - place % 2][-1] + int(char))
    for end in range(SHORTEST, len(digits) + 1):
        total = sums[end % 2]
        for start in range(max(0, end - LONGEST), end - SHORTEST + 1):
            if (total[end] - total[start]) % 10 == 0:
                yield start, end
