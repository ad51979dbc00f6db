"""Who a payment is: the same request has the same id everywhere, with no look-up."""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

NAMESPACE: Final = uuid.UUID("6f1d7e0c-51f4-5c0e-9d0a-6b6966697961")
"""The published UUIDv5 namespace of payment ids (RFC 9562, section 5.5)."""
_NAMESPACE: Final = NAMESPACE.bytes
_VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
"""The first digit of a UUID's clock sequence: its two high bits say that it is one."""


def _frame(*parts: str) -> bytes:
    """Join parts so that no two lists of parts give the same bytes: each is preceded by its length in bytes."""
    if all(map(str.isascii, parts)):
        return "".join([f"{len(part)}:{part}" for part in parts]).encode()
    encoded = [part.encode() for part in parts]
    return b"".join([b"%d:%s" % (len(part), part) for part in encoded])


def payment_id(merchant_id: str, idempotency_key: str) -> str:
    """The id of the payment that this merchant names with this key: UUIDv5 over the length-prefixed pair."""
    digest = hashlib.sha1(_NAMESPACE + _frame(merchant_id, idempotency_key), usedforsecurity=False).digest()
    found = digest.hex()
    variant = _VARIANT[found[16]]
    return f"{found[:8]}-{found[8:12]}-5{found[13:16]}-{variant}{found[17:20]}-{found[20:32]}"


def fingerprint(  # noqa: PLR0913 - all that makes two creates the same
    *,
    amount_minor: int,
    currency: str,
    payment_method: str,
    customer_id: str | None,
    description: str | None,
    metadata: dict[str, str],
    lane: str | None,
    expires_at_ms: int | None,
) -> str:
    """SHA-256 (hexadecimal) of the business fields; equal for two creates that ask for the same thing.

    ``None`` and the empty string differ; the order of ``metadata`` does not matter. ``lane`` is the lane *asked for*.
    """
    parts = [str(amount_minor), currency, payment_method]
    for optional in (customer_id, description, lane, expires_at_ms):
        parts += ["0", ""] if optional is None else ["1", str(optional)]
    for key in sorted(metadata):
        parts += [key, metadata[key]]
    return hashlib.sha256(_frame(*parts)).hexdigest()
