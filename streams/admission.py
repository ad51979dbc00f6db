"""Admission: for which merchants a command may speak that came from no part of the gateway. Pure.

The ingress knows its callers and seals what it writes; of any other record nobody knows the writer, so which merchants
may be named there is a setting. Whose record is one of theirs is looked at first, and costs no HMAC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas import seal
from schemas.command import InvalidCommand, check_merchant
from schemas.seal import Seals

NOT_ADMITTED: Final = "merchant-not-admitted"
"""The dead letters' reason."""
EVERY: Final = "*"
GOOD_SHARE: Final = 0.9
"""How much of intake's memory, in time, a seal is good for: the rest is for clocks that differ. So whatever copied
record comes again is either remembered, and dropped, or its seal is too old."""


@dataclass(frozen=True, slots=True)
class Admission:
    """``merchants`` is None where each may be named by whoever writes to the topic: then no seal is looked at."""

    merchants: frozenset[str] | None = None
    seals: Seals | None = None
    good_ms: int = 0

    def refusal(
        self, merchant_id: str, value: bytes, headers: Iterable[tuple[str, bytes | None]], now_ms: int
    ) -> str | None:
        """Why this record may not speak for the merchant, in a sentence; None: it may."""
        if self.merchants is None or merchant_id in self.merchants:
            return None
        found = seal.of(headers)
        if found is None:
            return "KAFKA_MERCHANTS does not name its merchant, and no part of the gateway has sealed it"
        at_ms = self.seals.sealed_at(value, found) if self.seals is not None else None
        if at_ms is None:
            return "it has a seal, but not of these bytes under a secret in COMMAND_SECRET"
        if now_ms - at_ms > self.good_ms:
            return "its seal is older than the payments are that intake remembers"
        return None


OPEN: Final = Admission()


def parse_merchants(said: str) -> frozenset[str] | None:
    """The merchants of a list separated by commas; None for ``*``. Raises ValueError."""
    if said.strip() == EVERY:
        return None
    try:
        return frozenset(check_merchant(name.strip()) for name in said.split(",") if name.strip())
    except InvalidCommand as error:
        raise ValueError(f"must be * or merchant ids separated by commas, each of which {error.detail}") from None
