"""Records from anybody, made readable: enums by value, garbage by size, nothing that plays tricks on a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import readable
from schemas import codec
from schemas.records import CommandType, PaymentCommand
from streams import dead_letter
from tests.unit.streams.world import TASK

LETTER = dead_letter.letter(
    reason="r", detail="", stage="intake", topic="t", partition=0, offset=1, original=b"12345", at_ms=9
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, {"tombstone": True}),
        (b'{"type": "cancel", "a": [1, null]}', {"json": {"type": "cancel", "a": [1, None]}}),
        (
            codec.encode(PaymentCommand(type=CommandType.CANCEL, payment_id="p")),
            {"record": "PaymentCommand", "type": "cancel", "payment_id": "p"},
        ),
    ],
)
def test_what_can_be_read_is_decoded(data: bytes | None, said: dict[str, Any]) -> None:
    assert readable.value(data) == said


def test_bytes_in_a_record_are_told_by_their_size() -> None:
    assert readable.value(codec.encode(LETTER))["original"] == "5 bytes"


def test_a_changelog_is_told_by_its_size() -> None:
    assert readable.value(b'{"state": "PENDING"}', changelog=True) == {"bytes": 20}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x01junk",
        b"\x00\x00\x00\x00\x02",
        b"\x00\x00\x00\x00\x63junk",
        codec.encode(TASK) + b"x",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a":' * 17 + b"1" + b"}" * 17,
        b"{\xff}",
    ],
)
def test_what_cannot_be_read_is_told_by_its_size_and_first_bytes(data: bytes) -> None:
    said = readable.value(data)
    assert said["bytes"] == len(data)
    assert said["hex"] == data[:32].hex()
    assert said["undecodable"]


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"\x00\x00\x00\x00\x02" + tail))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    json.dumps(readable.value(data), allow_nan=False)
    assert readable.text(data).isprintable()  # type: ignore[union-attr]  # data is not None


def test_text_cannot_play_tricks_on_a_terminal() -> None:
    assert readable.printable("a\x1b[31m\n\u202eb é") == "a\\x1b[31m\\n\\u202eb é"
    assert readable.text(b"k" * 500) == "k" * 120 + "…"
    assert readable.text(None) is None
