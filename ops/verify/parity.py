"""What ``payments.events`` says each payment is, held against PostgreSQL, row by row. Pure.

The fold keeps of each payment a digest of its newest row and which versions it has had, some 300 bytes. It is the
sink's own reading of a record (:func:`sinks.rows.batch`) with the sink's rule, the highest version stands, but not its
SQL: that is what is on trial.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from schemas.records import FINAL
from sinks import rows
from sinks.rows import Record

COLUMNS: Final = (
    "payment_id", "merchant_id", "idempotency_key", "fingerprint", "state", "version", "amount_minor", "currency",
    "payment_method", "customer_id", "description", "metadata", "lane", "expires_at", "attempt", "reason",
    "provider_charge_id", "accepted_at", "updated_at", "retry_at", "level",
)  # fmt: skip
"""As :func:`sinks.rows.batch` orders a payment's row."""
_STATE: Final = COLUMNS.index("state")
_VERSION: Final = COLUMNS.index("version")
_METADATA: Final = COLUMNS.index("metadata")
_REST: Final = tuple(place for place in range(len(COLUMNS)) if place not in rows.WORDS)
DIFFERS: Final = "differs from its newest event"
_FINAL: Final = frozenset(state.value for state in FINAL)


@dataclass(slots=True)
class Folded:
    """A payment as its events leave it; ``versions`` has bit v set where event v was there.

    ``words`` is the digest of what some events leave empty (:data:`sinks.rows.WORDS`), of one that does not.
    """

    version: int = 0
    state: str = ""
    digest: bytes = b""
    versions: int = 0
    words: bytes = b""


@dataclass(slots=True)
class Fold:
    """All payments; each event counts once, however often and in which order it comes."""

    payments: dict[uuid.UUID, Folded] = field(default_factory=dict)
    refused: int = 0

    def add(self, record: Record) -> None:
        """Take one record of ``payments.events``; one that the sink refuses has no row, and counts in ``refused``."""
        found = rows.batch([record])
        self.refused += len(found.refused)
        for row in found.payments:
            known = self.payments.setdefault(row[0], Folded())
            if row[_VERSION] > known.version:
                known.version, known.state, known.digest = row[_VERSION], row[_STATE], digest(row, _REST)
            if rows.says(row) or not known.words:
                known.words = digest(row, rows.WORDS)
        for row in found.events:
            self.payments[row[0]].versions |= 1 << row[1]


def digest(row: Sequence[Any], places: Sequence[int]) -> bytes:
    """16 bytes of these places of a payments row, the same for the sink's tuple and PostgreSQL's record."""
    plain = [orjson.loads(row[place]) if place == _METADATA else _plain(row[place]) for place in places]
    return hashlib.blake2b(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def _plain(item: Any) -> Any:
    return str(item) if isinstance(item, uuid.UUID) else item


def differing(expected: Sequence[Any], found: Sequence[Any]) -> list[str]:
    """The columns in which two rows of a payment differ."""
    return [
        name
        for name, one, other in zip(COLUMNS, expected, found, strict=True)
        if (orjson.loads(one) != orjson.loads(other) if name == "metadata" else one != other)
    ]


def row(expected: Folded | None, found: Sequence[Any] | None) -> str | None:
    """What is wrong with a row of ``payments``; None where nothing is."""
    if found is None:
        return "has no row in PostgreSQL"
    if expected is None:
        return "has a row in PostgreSQL and no event on the topic"
    if found[_VERSION] != expected.version:
        return f"is at version {found[_VERSION]} in PostgreSQL, at {expected.version} on the topic"
    same = digest(found, _REST) == expected.digest and digest(found, rows.WORDS) == expected.words
    return None if same else DIFFERS


def trail(expected: int, found: Iterable[int]) -> str | None:
    """What is wrong with a payment's rows of ``payment_events``, against the versions on the topic."""
    there = sum(1 << version for version in found)
    if expected & ~there:
        return f"lacks {(expected & ~there).bit_count()} of its events in PostgreSQL"
    if there & ~expected:
        return f"has {(there & ~expected).bit_count()} events in PostgreSQL that the topic does not hold"
    return None


def result(expected: Folded | None, found: str | None) -> str | None:
    """What is wrong with a payment's record in ``payments.results``: final ones have theirs, others none."""
    state = expected.state if expected is not None else "unknown to payments.events"
    if state in _FINAL and found is None:
        return f"is {state}, and not in payments.results"
    return None if found is None or found == state else f"is {state}, and {found} in payments.results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How many payments and events were held against each other, and what did not match, by payment."""

    payments: int
    events: int
    refused: int
    differences: Mapping[str, str]
    older: int = 0

    @property
    def holds(self) -> bool:
        """Whether the two sides say the same."""
        return not self.differences

    def line(self) -> str:
        """One line for a person."""
        same = self.payments - len(self.differences)
        share = same / self.payments if self.payments else 1.0
        said = f"{self.payments:,} payments, {self.events:,} events: parity {share:.4%}"
        if self.older:
            said += f"; {self.older:,} older than the topic holds were left out"
        if self.refused:
            said += f"; {self.refused:,} events that no row can hold are dead letters"
        return said
