"""Ports to listen on, from where the kernel puts no outgoing connections: a role that restarts finds its own free.

A port is given out some time before anybody listens on it, so none is given twice: a process takes them one after the
other, and processes that were started one after the other (tests' workers) take them from slices of their own.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from pathlib import Path
from typing import Final

_LOWEST: Final = 10_240
_SLICES: Final = 64
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


_LEAST: Final = 16
"""A slice of fewer ports is not worth it: then any free one."""
_NUMBERS: Final = itertools.count(random.SystemRandom().randrange(10_000))


def _ephemeral_from() -> int:
    try:
        return int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def is_free(port: int) -> bool:
    """Whether nobody listens on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(preferred: int = 0) -> int:
    """A loopback TCP port nobody listens on: the preferred one if it is free. Raises OSError where none is."""
    if preferred and is_free(preferred):
        return preferred
    size = (_ephemeral_from() - _LOWEST) // _SLICES
    if size > _LEAST:
        lowest = _LOWEST + os.getpid() % _SLICES * size
        for _ in range(size):
            port = lowest + next(_NUMBERS) % size
            if is_free(port):
                return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
