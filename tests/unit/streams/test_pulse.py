"""What a worker tells of itself."""

from __future__ import annotations

import asyncio

import pytest

from schemas.pulse import Head
from streams.pulse import Heart


def test_what_is_in_hand_is_the_head_and_what_is_done_is_behind_it() -> None:
    heart = Heart("", "pulse:x", breaker_open=lambda: True, limiter=lambda: False)
    with heart.handling("t", 1, 7, accepted_at_ms=5):
        said = heart.word()
        assert (said.in_hand, said.heads, said.breaker_open, said.limiter) == (1, {("t", 1): Head(7, 5)}, True, False)
    with heart.handling("t", 2, 10, after=15):
        pass
    assert heart.word().heads == {("t", 1): Head(8), ("t", 2): Head(15)}
    assert heart.word().beat == 3
    assert heart.word().in_hand == 0


def test_what_failed_is_not_done() -> None:
    heart = Heart("", "pulse:x")
    with pytest.raises(ValueError, match="x"), heart.handling("t", 1, 7):
        raise ValueError("x")
    assert (heart.word().heads, heart.word().in_hand) == ({("t", 1): Head(7)}, 0)


async def test_it_beats_on_without_redis_and_not_at_all_without_an_address() -> None:
    await Heart("", "pulse:x").beat()
    heart = Heart("redis://127.0.0.1:9/0", "pulse:x")
    beating = asyncio.create_task(heart.beat())
    while heart._beat < 2:
        await asyncio.sleep(0.01)
    beating.cancel()
    await asyncio.wait({beating})
    assert beating.cancelled()
