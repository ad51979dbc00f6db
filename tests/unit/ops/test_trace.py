"""Trace context: what is one, and that it goes with the work, from whatever headers it came in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import trace
from ops.kafka.message import Message

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (CONTEXT, CONTEXT), (CONTEXT.encode(), CONTEXT), (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"cc-{TRACE}-{SPAN}-01", CONTEXT), (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", CONTEXT),
        (f"ff-{TRACE}-{SPAN}-01", None), (f"{CONTEXT}-more", None), (CONTEXT.upper(), None), (f" {CONTEXT}", None),
        (f"00-{'0' * 32}-{SPAN}-01", None), (f"00-{TRACE}-{'0' * 16}-01", None), (f"00-{TRACE[1:]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None), (f"0-{TRACE}-{SPAN}-01", None), (f"00_{TRACE}_{SPAN}_01", None), ("", None),
        (None, None), (7, None), (b"\xff" * 55, None), (CONTEXT.replace("4", "\u0664"), None),
        (f"cc-{TRACE}-{SPAN}-01-" + "x" * 600, None), (f"{CONTEXT}\n", None),
        (f"00-0000000000000000{'4111111111111111'}-{SPAN}-01", None), (f"00-{TRACE}-4111111111111111-01", None),
    ],
)  # fmt: skip
def test_a_context_is_what_the_recommendation_says(value: object, kept: str | None) -> None:
    assert trace.parse(value) == kept


@given(st.text() | st.binary())
def test_anything_else_is_none(value: str | bytes) -> None:
    assert trace.parse(value) is None


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (None, None), ([], None), ({}, None), ({"traceparent": CONTEXT.encode()}, CONTEXT),
        ([("traceparent", CONTEXT.encode())], CONTEXT), ([(b"traceparent", CONTEXT.encode())], CONTEXT),
        ((("x", b"y"), ("traceparent", CONTEXT.encode())), CONTEXT), ([("traceparent", None)], None),
        ([("traceparent", CONTEXT.encode())] * 2, None), ([("tracestate", b"a=b")], None),
    ],
)  # fmt: skip
def test_it_is_found_in_any_clients_headers(headers: Any, found: str | None) -> None:
    assert trace.of(headers) == found


def test_a_record_is_marked_once_and_keeps_its_other_headers() -> None:
    message = Message("t", b"k", b"v", (("traceparent", b"old"), ("x", b"y")))
    assert trace.marked(message, CONTEXT).headers == (("x", b"y"), ("traceparent", CONTEXT.encode()))
    assert trace.marked(message, None) is message


async def test_what_is_published_belongs_to_the_current_work() -> None:
    published: list[Message] = []

    async def publish(messages: list[Message]) -> None:
        published.extend(messages)

    async def work(context: str | None) -> None:
        trace.CURRENT.set(context)
        await asyncio.sleep(0)
        await trace.carrying(publish)([Message("t", b"k", str(context).encode())])
        assert trace.outgoing() == ({"traceparent": context} if context else {})

    other = CONTEXT.replace("4bf9", "aaaa")
    await asyncio.gather(*(asyncio.create_task(work(context)) for context in (CONTEXT, None, other)))
    found = {message.value: dict(message.headers) for message in published}
    assert found == {
        CONTEXT.encode(): {"traceparent": CONTEXT.encode()},
        b"None": {},
        other.encode(): {"traceparent": other.encode()},
    }
