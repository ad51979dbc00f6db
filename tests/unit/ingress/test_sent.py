"""Headers are told as they were sent, those that came twice too."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingress.sent import Sent, sent

NAMES = st.sampled_from([b"accept", b"authorization", b"prefer", b"idempotency-key"])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=3)), max_size=8), NAMES)
def test_each_name_has_all_that_was_sent_under_it_in_order(pairs: list[tuple[bytes, bytes]], name: bytes) -> None:
    assert Sent(pairs).values(name) == [value for each, value in pairs if each == name]


def test_a_request_gathers_them_once() -> None:
    scope = {"headers": [(b"prefer", b"wait=3")]}
    assert sent(scope) is sent(scope)
    assert sent(scope).values(b"prefer") == [b"wait=3"]
