"""When a request's first bytes came to the provider's machine: as its kernel noted it, not when a busy process looked.

A process that waits for a processor reads late and several connections at once, so its own clock shows calls closer
together than they came. Linux notes with SO_TIMESTAMPNS when a segment came in (socket(7)); of segments that wait
together it tells the last one's time. Elsewhere, and where there is no note, the moment of reading has to do.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any, Final

_SO_TIMESTAMPNS: Final = 35 if sys.platform == "linux" else None
_TIMESPEC: Final = struct.Struct("@ll")
_READ: Final = 64 * 1024
_TOGETHER_NS: Final = 100_000
_TRIES: Final = 5
_OLDEST_NS: Final = 10_000_000_000
"""Nothing waits longer to be read: the wall clock was set meanwhile."""


def noting(listener: socket.socket) -> socket.socket:
    """The listening socket given, whose connections note when their bytes come in."""
    if _SO_TIMESTAMPNS is not None:
        listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return listener


def came_ns(connection: socket.socket) -> int:
    """When the bytes to be read next came in, monotonic nanoseconds; now where the kernel does not say."""
    noted_ns = _noted_ns(connection)
    now_ns = time.monotonic_ns()
    if noted_ns is None:
        return now_ns
    for _ in range(_TRIES):
        wall_ns, before_ns = time.time_ns(), now_ns
        now_ns = time.monotonic_ns()
        if now_ns - before_ns < _TOGETHER_NS:
            break  # else this process was put aside between the two clocks
    age_ns = wall_ns - noted_ns
    return now_ns - age_ns if 0 <= age_ns < _OLDEST_NS else now_ns


def _noted_ns(connection: socket.socket) -> int | None:
    """The kernel's note, on the wall clock."""
    if _SO_TIMESTAMPNS is None:
        return None
    try:
        _, notes, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(_TIMESPEC.size), socket.MSG_PEEK)
    except OSError:
        return None
    for level, kind, note in notes:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(note) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(note)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return None


class Noting(asyncio.BufferedProtocol):
    """Reads for a protocol of streams, and before each read asks when what is there came in.

    ``inner`` finds it in ``inner.came_ns``.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._buffer = memoryview(bytearray(_READ))
        self._connection: socket.socket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep a socket of our own on the connection: the transport's cannot peek."""
        self._inner.connection_made(transport)
        with suppress(OSError):  # too many are open: without notes, then
            self._connection = transport.get_extra_info("socket").dup()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._inner.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's name
        """Where to read to; asked just before reading."""
        self._inner.came_ns = came_ns(self._connection) if self._connection else time.monotonic_ns()
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So much was read."""
        self._inner.data_received(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> Any:
        """Nothing more will come."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """The peer reads slowly."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._inner.resume_writing()
