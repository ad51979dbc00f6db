"""Texts of merchants: what must not be in them because nobody sees it, and the one form in which they are kept.

Two texts that look the same may differ in what is invisible; and what is seen may be turned around for whoever reads a
statement, a log or a support page. Unicode's own list of what to keep out of names is UTS 39; tags smuggle whole texts.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_CONTROLS: Final = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_DIRECTION: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"
_ZERO_WIDTH: Final = "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u3164\ufeff\uffa0"
_TAGS: Final = "\ufff9-\ufffb\U000e0000-\U000e007f"
_UNSAFE: Final = re.compile(
    f"[{_CONTROLS}{_DIRECTION}{_ZERO_WIDTH}{_TAGS}]"
    "|(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]"
    "|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])"
)
"""A joiner is let through where it joins something beyond ASCII: Persian, Hindi and many emoji cannot do without it."""


def unsafe(text: str) -> bool:
    """Whether a text holds what is not seen or turns around what is: controls, directions, zero widths, tags."""
    return _UNSAFE.search(text) is not None


def normal(text: str) -> str:
    """The text in Unicode's form NFC (UAX 15): however it was typed, the same words are the same text."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
