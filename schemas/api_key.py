"""API keys: ``kfy_<mode>_<key id>.<secret>``. Only an HMAC of the whole key is stored. Pure: randomness is passed in.

The key id names the row and is no secret; mode and id are part of what is signed, so neither can be exchanged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from enum import StrEnum
from typing import Final

ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
LONGEST: Final = 128
"""What is read of a key at most; ours have 69 characters."""
SCOPES: Final = ("payments:write", "payments:read", "ops")
SANDBOX_PEPPER: Final = "kifiya-sandbox-pepper-known-to-all"
"""What `kifiya up` and `kifiya demo` sign with where API_KEY_PEPPER is not set: good for trying things out only."""
PEPPER_LEAST: Final = 16

_SHAPE: Final = re.compile(rb"kfy_(?:test|live)_([0-9a-f]{16})\.[A-Za-z0-9_-]{43}")


class Mode(StrEnum):
    """``test`` keys reach the sandbox only, ``live`` keys everything but the sandbox."""

    TEST = "test"
    LIVE = "live"


def write(mode: Mode, key_id: bytes, secret: bytes) -> tuple[str, str]:
    """The id and the whole key out of ``ID_BYTES`` and ``SECRET_BYTES`` random bytes."""
    name = key_id.hex()
    return name, f"kfy_{mode.value}_{name}.{base64.urlsafe_b64encode(secret).decode().rstrip('=')}"


def key_id(presented: bytes) -> str | None:
    """The id in a well-formed key, else None."""
    found = _SHAPE.fullmatch(presented)
    return found[1].decode() if found else None


def digest(pepper: bytes, presented: bytes) -> bytes:
    """What is stored of a key, and what a presented one is held against: HMAC-SHA256, 32 bytes."""
    return hmac.digest(pepper, presented[:LONGEST], hashlib.sha256)


def check_scopes(scopes: list[str]) -> list[str]:
    """Pass known scopes on, each once, in our order. Raises ValueError naming the unknown one."""
    for scope in scopes:
        if scope not in SCOPES:
            raise ValueError(f"{scope!r} is not a scope: there are {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in scopes]
