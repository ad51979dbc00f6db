"""What a request brings: its idempotency key and its body, each within bounds."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from ingress.problem import Problem
from ingress.sent import sent
from ops.deadline import within
from schemas import command as commands
from schemas.command import MAX_BYTES, InvalidCommand

KEY_HEADER: Final = "Idempotency-Key"
_KEY: Final = KEY_HEADER.lower().encode()
BODY_S: Final = 10.0
"""How long a body may take to come."""
_DRAIN_BYTES: Final = 1024 * 1024
"""An oversize body is read to here before it is refused: a client that still sends would lose the answer otherwise."""


def values(request: Request, name: bytes) -> list[str]:
    """All values of a header, by its name in lower case."""
    return [value.decode("latin-1") for value in sent(request.scope).values(name)]


def key(request: Request) -> str:
    """The idempotency key of a request. Raises Problem 400."""
    found = values(request, _KEY)
    if not found:
        raise Problem(400, "missing-idempotency-key", "is required", field=KEY_HEADER)
    if len(found) > 1:
        raise Problem(400, "invalid-idempotency-key", "must be sent once", field=KEY_HEADER)
    try:
        return commands.check_key(found[0])
    except InvalidCommand as error:
        raise Problem(400, "invalid-idempotency-key", error.detail, field=KEY_HEADER) from error


async def json_body(
    request: Request, *, kind: str = "application/json", most: int = MAX_BYTES, within_s: float = BODY_S
) -> bytes:
    """The body of a request of this kind. Raises Problem 408, 413, 415, ClientDisconnect."""
    kinds = [each.partition(";")[0].strip().lower() for each in values(request, b"content-type")]
    if kinds != [kind]:
        raise Problem(415, "unsupported-media-type", f"must be {kind}", field="Content-Type")
    if any(coding.strip().lower() != "identity" for coding in values(request, b"content-encoding")):
        detail = "must be absent: send the body uncompressed"
        raise Problem(415, "unsupported-encoding", detail, field="Content-Encoding")
    return await body(request, most=most, within_s=within_s)


async def body(request: Request, *, most: int = MAX_BYTES, within_s: float = BODY_S) -> bytes:
    """The body, of at most that many bytes. Raises Problem 408, 413, ClientDisconnect."""
    drain = max(_DRAIN_BYTES, most)
    for length in values(request, b"content-length"):
        if len(length) > len(str(drain)) or (length.isdecimal() and int(length) > drain):
            raise _too_large(most)
    read, size, more = bytearray(), 0, True
    try:
        with within(within_s):
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk, more = message.get("body", b""), message.get("more_body", False)
                size += len(chunk)
                if size > drain:
                    raise _too_large(most)
                if size <= most:
                    read += chunk
    except TimeoutError as error:
        raise Problem(408, "body-too-slow", f"the body did not come within {within_s:g} s", close=True) from error
    if size > most:
        raise _too_large(most)
    return bytes(read)


def _too_large(most: int) -> Problem:
    return Problem(413, "too-large", f"the body may have at most {most} bytes", close=True)
