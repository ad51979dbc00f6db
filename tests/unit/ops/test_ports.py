"""Ports are given out before anybody listens on them, so none may be given twice."""

from __future__ import annotations

import os
import socket

import pytest

from ops.local import ports


def test_a_port_is_not_given_out_again_soon_though_nobody_listens_yet() -> None:
    found = [ports.free_port() for _ in range(200)]
    assert len(set(found)) == len(found)


def test_one_that_somebody_listens_on_is_not_given_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert ports.free_port(taken) != taken
    assert ports.free_port(taken) == taken


def test_processes_that_were_started_one_after_the_other_have_ports_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: set[int] = set()
    for number in range(8):
        monkeypatch.setattr(os, "getpid", lambda pid=1000 + number: pid)
        mine = {ports.free_port() for _ in range(50)}
        assert not mine & found
        found |= mine


def test_where_the_kernel_leaves_no_room_below_any_free_port_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_ephemeral_from", lambda: 10_300)
    assert ports.is_free(ports.free_port())
