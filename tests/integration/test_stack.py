"""The embedded stack's start where other programs draw from the same ports."""

from __future__ import annotations

import socket

import pytest

from ops.local import embedded
from ops.local.ports import free_port
from ops.local.stack import running


async def test_a_port_that_another_took_meanwhile_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = [other.getsockname()[1]]
        monkeypatch.setattr(embedded, "free_port", lambda: ports.pop() if ports else free_port())
        async with running("embedded", parts=frozenset({"redis"}), overrides=False) as stack:
            assert not ports
            assert f":{other.getsockname()[1]}/" not in stack.redis_url
