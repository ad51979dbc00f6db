"""JSON from strangers: a value within bounds, or InvalidJson that repeats nothing of it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import strict_json
from schemas.command import MAX_BYTES, MAX_DEPTH
from schemas.strict_json import InvalidJson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**38), 10**38) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b'{"a": 1, "b": [true, null, "x"]}', {"a": 1, "b": [True, None, "x"]}),
        (b" \n{}\t", {}),
        (b'{"a": -0}', {"a": 0}),
        (b'{"a": -0.0}', {"a": -0.0}),
        (b'{"a": 1e3}', {"a": 1000.0}),
        (b'{"\xc3\xa9": "\\u00e9"}', {"\u00e9": "\u00e9"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a": "\\ud800"}', {"a": "\ud800"}),  # no text of ours may hold it: schemas.command refuses it
        (b'{"a": "[[[[[[[[[[[[[[[[[[[[{{{{{{{"}', {"a": "[" * 20 + "{" * 7}),
        (b'{"a": "\\"[[[[[[[[[[[[[[[[[[["}', {"a": '"' + "[" * 19}),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
        (b"[" + b"[]," * 500 + b"[]]", None),
        (b'{"a": ' + b"9" * 40 + b"}", {"a": int("9" * 40)}),
        (b'"' + b"x" * (MAX_BYTES - 2) + b'"', "x" * (MAX_BYTES - 2)),
    ],
)
def test_plain_json_is_read(data: bytes, value: Any) -> None:
    found = strict_json.loads(data)
    assert value is None or found == value


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": 1, "\\u0061": 2}', "twice"),
        (b'{"x": {"secret": 1, "secret": 2}}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "NaN"),
        (b'{"a": -Infinity}', "NaN"),
        (b'{"a": 1e400}', "too large"),
        (b'{"a": -1e400}', "too large"),
        (b'{"a": ' + b"9" * 41 + b"}", "too long"),
        (b'{"a": 0.' + b"9" * 60000 + b"}", "too long"),
        (b'{"a": -' + b"9" * 60000 + b"}", "too long"),
        (b"[" * 17 + b"]" * 17, "deeper"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "deeper"),
        (b"[" * 60000, "deeper"),
        (b'["\\"]", ' + b"[" * 17, "deeper"),
        (b'["\\\\", ' + b"[" * 17, "deeper"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),  # a surrogate in UTF-8
        (b'{"a": "\xc0\x80"}', "not UTF-8"),  # an overlong NUL
        (b'{"a": "\x00"}', "not JSON"),
        (b'{"a": "\n"}', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": +1}', "not JSON"),
        (b'{"a": .5}', "not JSON"),
        (b'{"a": 1} {"b": 2}', "not JSON"),
        (b'{"a": 1 // secret\n}', "not JSON"),
        (b"{", "not JSON"),
        (b'"\\', "not JSON"),
        (b"", "not JSON"),
        (b"   ", "not JSON"),
        (b" " * (MAX_BYTES + 1), "larger"),
    ],
)
def test_what_is_not_plain_is_refused_and_not_repeated(data: bytes, says: str) -> None:
    with pytest.raises(InvalidJson, match=says) as refused:
        strict_json.loads(data)
    assert "secret" not in str(refused.value)
    assert len(str(refused.value)) < 120


@given(VALUES)
def test_what_json_writes_is_read_back(value: Any) -> None:
    assert strict_json.loads(json.dumps(value).encode()) == value
    assert strict_json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == value


NEARLY = st.text(alphabet='{}[]",:\\u0123456789aeEntruefalsN+-. \n', max_size=80).map(str.encode)


@given(st.binary(max_size=200) | NEARLY)
def test_any_bytes_are_json_or_invalid_json(data: bytes) -> None:
    try:
        strict_json.loads(data)
    except InvalidJson:
        return
    json.loads(data)


@pytest.mark.parametrize("data", [b"[" * 65536, b'"' * 65536, b"\\" * 65536, b'{"a":' * 13000, b'["' + b'\\"' * 32000])
def test_64_kib_of_anything_are_judged_at_once(data: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(InvalidJson):
        strict_json.loads(data)
    assert time.perf_counter() - start < 0.5
