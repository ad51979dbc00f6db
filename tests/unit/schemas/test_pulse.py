"""A pulse is read as it was told, and nothing else breaks its reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import pulse
from schemas.pulse import Head, InvalidPulse, Pulse

HEADS = st.dictionaries(
    st.tuples(st.text(max_size=20), st.integers(0, 1024)),
    st.builds(Head, st.integers(0, 2**62), st.none() | st.integers(0, 2**41)),
    max_size=10,
)
AHEAD = st.dictionaries(
    st.text(max_size=20), st.dictionaries(st.text(max_size=20), st.floats(0, 1e9), max_size=5), max_size=3
)


@given(st.builds(Pulse, st.integers(0), st.booleans(), st.booleans(), st.integers(0, 9999), HEADS, AHEAD))
def test_it_is_read_as_it_was_told(said: Pulse) -> None:
    assert pulse.decode(pulse.encode(said)) == said


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"1", b"[]", b"{}", b'{"beat":1}', b"[" * 100_000,
            b'{"beat":1,"breaker_open":0,"limiter":1,"in_hand":0,"heads":[[1]]}',
            b'{"beat":1,"breaker_open":0,"limiter":1,"in_hand":0,"heads":[],"ahead":[]}',
            b'{"beat":1e999,"breaker_open":0,"limiter":1,"in_hand":0,"heads":[],"ahead":{}}']
)  # fmt: skip
def test_what_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPulse):
        pulse.decode(raw)


def test_lanes_share_no_key() -> None:
    assert len({pulse.dispatch("a"), pulse.dispatch("b"), pulse.dispatch("intake"), pulse.INTAKE}) == 4
