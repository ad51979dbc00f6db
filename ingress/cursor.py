"""Where a reader of ``payments.events`` stands: the next offset of each partition, as one opaque word.

base64url of: a format byte, the offsets as varints, CRC-32. The checksum tells a cut or invented word from ours; it is
no secret, as a cursor opens nothing: what is read from it is filtered by the caller's merchant.
"""

from __future__ import annotations

import binascii
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

LONGEST: Final = 4096
"""Characters; 12 partitions take about 70."""
_FORMAT: Final = b"\x01"
_CRC_BYTES: Final = 4
_MORE: Final = 0x80
_OFFSET_BITS: Final = 63


class InvalidCursor(ValueError):
    """A word that is none of ours."""


def encode(offsets: Sequence[int]) -> str:
    """The word for these offsets, one of each partition in order."""
    body = bytearray(_FORMAT)
    for offset in offsets:
        left = offset
        while left >= _MORE:
            body.append(left & (_MORE - 1) | _MORE)
            left >>= 7
        body.append(left)
    body += zlib.crc32(body).to_bytes(_CRC_BYTES, "big")
    return urlsafe_b64encode(body).rstrip(b"=").decode()


def decode(text: str) -> tuple[int, ...]:
    """The offsets of a word that ``encode`` wrote. Raises InvalidCursor, never anything else."""
    if not text or len(text) > LONGEST or not text.isascii():
        raise InvalidCursor("is no cursor")
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor("is no cursor") from error
    body, crc = raw[:-_CRC_BYTES], raw[-_CRC_BYTES:]
    if body[:1] != _FORMAT or zlib.crc32(body).to_bytes(_CRC_BYTES, "big") != crc:
        raise InvalidCursor("is no cursor")
    offsets: list[int] = []
    value = shift = 0
    for byte in body[1:]:
        value |= (byte & (_MORE - 1)) << shift
        shift += 7
        if not byte & _MORE:
            offsets.append(value)
            value = shift = 0
    if shift or not offsets or any(offset >> _OFFSET_BITS for offset in offsets) or encode(offsets) != text:
        raise InvalidCursor("is no cursor")
    return tuple(offsets)
