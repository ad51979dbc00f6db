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


def test_of_several_in_hand_the_first_unfinished_one_is_the_head_moved_on_by_what_is_finished_behind_it() -> None:
    """What is left from the head on is what is left to do, though the first one takes long."""
    heart = Heart("", "pulse:x")
    blocks = {offset: heart.handling("t", 1, offset, accepted_at_ms=offset) for offset in (4, 5, 6)}
    heads: list[Head] = []
    for offset in (4, 5, 6):
        blocks[offset].__enter__()
    for offset in (5, 6, 4):
        blocks[offset].__exit__(None, None, None)
        heads.append(heart.word().heads["t", 1])
    assert heads == [Head(5, 4), Head(6, 4), Head(7)]
    with heart.handling("t", 1, 2):
        assert heart.word().heads["t", 1] == Head(2), "a rebalance has set it back"
    assert heart.word().heads["t", 1] == Head(3)


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
