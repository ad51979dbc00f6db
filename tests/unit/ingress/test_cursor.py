"""A cursor is its offsets, and nothing else is a cursor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress import cursor
from ingress.cursor import InvalidCursor

OFFSETS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=24)


@given(OFFSETS)
def test_what_was_encoded_is_read_back(offsets: list[int]) -> None:
    assert cursor.decode(cursor.encode(offsets)) == tuple(offsets)


@given(OFFSETS, st.data())
def test_a_changed_word_is_refused(offsets: list[int], data: st.DataObject) -> None:
    word = cursor.encode(offsets)
    place = data.draw(st.integers(0, len(word) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda letter: letter != word[place]))
    with pytest.raises(InvalidCursor):
        cursor.decode(word[:place] + other + word[place + 1 :])


@given(OFFSETS, st.integers(1, 8))
def test_a_cut_word_is_refused(offsets: list[int], cut: int) -> None:
    with pytest.raises(InvalidCursor):
        cursor.decode(cursor.encode(offsets)[:-cut])


@given(st.text(max_size=60))
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    with pytest.raises(InvalidCursor):
        cursor.decode(text)


@pytest.mark.parametrize(
    "word",
    ["", "=", "AQ", "é", "A" * 5000, cursor.encode([1]) + "=", cursor.encode([1]) + "\n", " " + cursor.encode([1])],
)
def test_words_that_are_none(word: str) -> None:
    with pytest.raises(InvalidCursor):
        cursor.decode(word)


def test_twelve_partitions_fit_in_a_header_with_ease() -> None:
    assert len(cursor.encode([10_000_000] * 12)) <= 80
