"""A body that does not come in time is not waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Request

from ingress import requests
from ingress.problem import Problem


async def test_a_body_that_never_ends_is_given_up() -> None:
    async def receive() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}, receive)
    with pytest.raises(Problem) as found:
        await requests.json_body(request, within_s=0.1)
    assert (found.value.status, found.value.code, found.value.close) == (408, "body-too-slow", True)


@pytest.mark.parametrize("lengths", [["1048577"], ["99999999999999999999"], ["9" * 5000], ["3", "1048577"]])
async def test_a_length_that_is_far_too_much_is_refused_unread(lengths: list[str]) -> None:
    async def receive() -> Any:
        raise AssertionError("read")

    headers = [(b"content-length", length.encode()) for length in lengths]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(Problem) as found:
        await requests.body(request)
    assert found.value.status == 413
