"""What is written of an answer in one turn of the loop goes out at once, in order, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from ingress.one_write import LARGE, OneWrite


class Transport:
    """Writes into a list; ``closed`` is what had been written by then."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed: list[bytes] | None = None
        self.aborted = False
        self.paused = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = list(self.written)

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed is not None or self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def get_extra_info(self, name: str) -> str:
        return f"its {name}"


@pytest.fixture
async def transport() -> Transport:
    return Transport()


@pytest.fixture
async def writing(transport: Transport) -> OneWrite:
    return OneWrite(cast("Any", transport), asyncio.get_running_loop())


async def test_head_and_body_are_one_write(transport: Transport, writing: OneWrite) -> None:
    writing.write(b"head")
    assert transport.written == []
    writing.write(b"body")
    assert transport.written == [b"headbody"]
    writing.write(b"an answer without one")
    writing.flush()
    await asyncio.sleep(0)
    writing.flush()
    assert transport.written == [b"headbody", b"an answer without one"]


async def test_what_nobody_flushes_goes_out_in_the_next_turn(transport: Transport, writing: OneWrite) -> None:
    for number in range(3):
        writing.write(b"%d" % number)
        writing.write(b";")
        await asyncio.sleep(0)
    assert transport.written == [b"0;", b"1;", b"2;"]


async def test_no_more_than_one_small_piece_is_held_so_that_the_transport_can_say_stop(
    transport: Transport, writing: OneWrite
) -> None:
    for number in range(1, 100):
        writing.write(bytes(1000))
        assert number * 1000 - sum(map(len, transport.written)) <= 1000
    writing.write(bytes(LARGE + 1))
    assert sum(map(len, transport.written)) == 99 * 1000 + LARGE + 1


async def test_what_is_held_when_the_connection_ends_is_dropped(transport: Transport, writing: OneWrite) -> None:
    writing.write(b"to nobody")
    writing.abort()
    await asyncio.sleep(0)
    assert transport.written == []


async def test_a_close_comes_after_what_was_written(transport: Transport, writing: OneWrite) -> None:
    writing.write(b"the end")
    writing.close()
    assert transport.closed == [b"the end"]
    assert writing.is_closing()


async def test_all_else_is_the_transports_own(transport: Transport, writing: OneWrite) -> None:
    writing.pause_reading()
    assert transport.paused
    assert writing.get_extra_info("peername") == "its peername"
    writing.abort()
    assert writing.is_closing()
    with pytest.raises(AttributeError):
        _ = writing.nothing_of_the_kind
