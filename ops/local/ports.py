"""Ports to listen on, from where the kernel puts no outgoing connections: a role that restarts finds its own free."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

_LOWEST: Final = 10_240
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


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
    highest = _ephemeral_from()
    if highest - _LOWEST > 1000:  # noqa: PLR2004 - room enough to draw from
        chosen = random.SystemRandom()
        for _ in range(200):
            port = chosen.randrange(_LOWEST, highest)
            if is_free(port):
                return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
