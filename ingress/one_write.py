"""One write for one answer: uvicorn writes its head and its body each by itself, two calls of the kernel for one."""

from __future__ import annotations

import asyncio
from typing import Any, Final

LARGE: Final = 16 * 1024
"""A piece of this size is worth a write of its own."""


class OneWrite:
    """A transport that holds a write until the next one comes, at the longest to the loop's next turn.

    Never more: a client that does not read stops who writes only where the real transport knows of what is written.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.abort = transport.abort

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write with what was written before it, or is written next."""
        self._held.append(data)
        if len(self._held) > 1 or len(data) > LARGE:
            self.flush()
        else:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            held, self._held = self._held, []
            if not self.is_closing():  # aborted meanwhile
                self._transport.write(b"".join(held))

    def close(self) -> None:
        """Close once all is written."""
        self.flush()
        self._transport.close()
