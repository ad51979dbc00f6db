"""Texts: what is invisible or turns text around is told, what people write is let through, and NFC is one form."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import text

INVISIBLE = {
    "NUL": "\x00", "bell": "\x07", "escape": "\x1b", "carriage return": "\r", "delete": "\x7f", "next line": "\x85",
    "soft hyphen": "\u00ad", "grapheme joiner": "\u034f", "arabic letter mark": "\u061c", "hangul filler": "\u115f",
    "khmer inherent vowel": "\u17b4", "mongolian separator": "\u180e", "zero width space": "\u200b",
    "left to right mark": "\u200e", "right to left mark": "\u200f", "line separator": "\u2028",
    "paragraph separator": "\u2029", "right to left override": "\u202e", "pop": "\u202c", "word joiner": "\u2060",
    "invisible times": "\u2062", "isolate": "\u2066", "pop isolate": "\u2069", "digit shapes": "\u206e",
    "wide hangul filler": "\u3164", "byte order mark": "\ufeff", "narrow hangul filler": "\uffa0",
    "annotation": "\ufff9", "lone surrogate": "\ud800", "tag": "\U000e0041", "language tag": "\U000e0001",
    "end of tags": "\U000e007f",
}  # fmt: skip


@pytest.mark.parametrize("name", INVISIBLE)
@pytest.mark.parametrize("around", ["Order{}1001", "{}", "ሰላም{}ሰላም"])
def test_what_nobody_sees_is_unsafe(name: str, around: str) -> None:
    assert text.unsafe(around.format(INVISIBLE[name]))


@pytest.mark.parametrize(
    "joined", ["a\u200db", "\u200dab", "ab\u200d", "\u200c", "می\u200c", "\u200cمی", "1\u200d\u200d2", "م\u200c\u200dم"]
)
def test_a_joiner_that_joins_nothing_is_unsafe(joined: str) -> None:
    assert text.unsafe(joined)


@pytest.mark.parametrize(
    "written",
    [
        "Order 1001", "a\tb\nc", "ክፍያ ለሰላም", "نمی\u200cخواهم", "क्\u200dष", "👩\u200d💻 desk", "❤️", "Ünïcødé", "葛󠄀城",  # noqa: RUF001
        "שלום", "مرحبا", "€ 12,50 – ok", "한국어",  # noqa: RUF001
    ],
)  # fmt: skip
def test_what_people_write_is_let_through(written: str) -> None:
    assert not text.unsafe(written)
    assert not text.unsafe(text.normal(written))


def test_every_format_character_but_joiners_and_subtending_marks_is_unsafe() -> None:
    """All of Unicode's category Cf, so that a newer Unicode's additions are seen here."""
    visible = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    drawn = {*range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B)}  # scripts of their own
    formats = {code for code in range(0x110000) if unicodedata.category(chr(code)) == "Cf"}
    assert {code for code in formats if not text.unsafe(f"a{chr(code)}b")} == (visible | drawn) & formats


@given(st.text())
def test_the_normal_form_is_nfc_and_stays(given_text: str) -> None:
    normal = text.normal(given_text)
    assert normal == unicodedata.normalize("NFC", given_text) == text.normal(normal)
