"""The Prefer header: what it may say, and what of it is left alone."""

from __future__ import annotations

import time

import pytest

from ingress import prefer


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["wait=10"], 10), (["Wait = 10"], 10), (['wait="10"'], 10), (["respond-async, wait=5"], 5),
        (["respond-async", "wait=5"], 5), (["wait=5, wait=9"], 5), (["wait=5; foo=bar"], 5), (["wait=31"], 30),
        (["wait=999999999"], 30), ([], 0), ([""], 0), (["wait"], 0), (["wait=0"], 0), (["wait=-1"], 0),
        (["wait=1.5"], 0), (["wait=ten"], 0), (["wait=٣"], 0), (["wait=9999999999"], 0), (['foo="a, wait=5"'], 0),
        (["awaiting=5"], 0), (["x" * 1001 + ", wait=5"], 0), (['wait="5'], 0),
    ],
)  # fmt: skip
def test_what_a_client_prefers(headers: list[str], seconds: int) -> None:
    assert prefer.wait_s(headers) == seconds


@pytest.mark.parametrize("text", ['"' * 999, "," * 999, '="' * 499, "wait=" * 199, "; " * 499])
def test_nonsense_takes_no_time(text: str) -> None:
    began = time.perf_counter()
    assert prefer.wait_s([text]) == 0
    assert time.perf_counter() - began < 0.5
