"""Seals: by them intake knows the commands that the gateway's own parts wrote, whatever merchant they name. Pure.

A seal is ``<milliseconds>.<hex>`` in a record's header: when it was made, and an HMAC-SHA256 over that moment and the
record's value. Without the secret nobody makes one, and one that was copied fits no other value: what it was copied
from says the same of the same payment, which intake remembers for as long as it takes the seal for good.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

HEADER: Final = "kifiya-seal"
SECRET_LEAST: Final = 32
"""Bytes of a secret at least."""

_PURPOSE: Final = b"kifiya: seal of payments.commands, version 1"
_LONGEST: Final = 80
"""Of a seal, in bytes: whatever is longer is none, and is passed on nowhere."""


class Seals:
    """Seals and checks under these secrets: the first one seals, each may have sealed what is checked."""

    __slots__ = ("_keys",)

    def __init__(self, secrets: Iterable[str]) -> None:
        # A key of this purpose alone: a MAC that another part makes under the same secret is no seal.
        self._keys = tuple(hmac.digest(secret.encode(), _PURPOSE, hashlib.sha256) for secret in secrets)

    def header(self, value: bytes, now_ms: int) -> tuple[str, bytes]:
        """The header that seals this value."""
        moment = b"%d." % now_ms
        return HEADER, moment + hmac.digest(self._keys[0], moment + value, "sha256").hex().encode()

    def sealed_at(self, value: bytes, seal: bytes) -> int | None:
        """When this value was sealed, in milliseconds since 1970; None where none of our secrets made this seal."""
        moment, dot, mac = seal.partition(b".")
        if not dot or not moment.isdigit() or len(seal) > _LONGEST:
            return None
        signed = moment + dot + value
        made = [hmac.digest(key, signed, "sha256").hex().encode() for key in self._keys]
        fits = [hmac.compare_digest(each, mac) for each in made]
        return int(moment) if any(fits) else None

    def renewed(self, value: bytes, seal: bytes, now_ms: int) -> bytes:
        """A seal of this moment in place of one of ours; any other stays what it is."""
        return seal if self.sealed_at(value, seal) is None else self.header(value, now_ms)[1]


def of(headers: Iterable[tuple[str, bytes | None]]) -> bytes | None:
    """What may be a seal in a record's headers; None where nothing may."""
    found = next((value for name, value in headers if name == HEADER), None)
    return found if found is not None and len(found) <= _LONGEST else None


def parse(secrets: str) -> Seals | None:
    """Seals under secrets separated by commas; None where there are none. Raises ValueError that repeats none."""
    found = [secret.strip() for secret in secrets.split(",") if secret.strip()]
    if any(len(secret.encode()) < SECRET_LEAST for secret in found):
        raise ValueError(f"must be one or several of at least {SECRET_LEAST} bytes, separated by commas")
    return Seals(found) if found else None
