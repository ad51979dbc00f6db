"""The error tree of the streams; each class says whether the same thing may be tried again.

StreamError
├── PermitExpired         nothing was sent; take a new permit
├── Overtaken             the payment went on elsewhere; read the ledger again
├── ArchiveAway           nothing was found out; the payment may go on
└── LimiterUnavailable    nothing was sent; no calls until the store is back
"""

from __future__ import annotations


class StreamError(Exception):
    """Root. ``may_retry``: whether trying again is safe; ``outcome_unknown``: whether something may have happened."""

    may_retry = True
    outcome_unknown = False


class PermitExpired(StreamError):
    """The permit's time is over and no byte was written."""


class Overtaken(StreamError):
    """The ledger does not say any more what the decision was based on; nothing was written."""


class ArchiveAway(StreamError):
    """PostgreSQL does not answer: it is not known whether the payment was made long ago."""


class LimiterUnavailable(StreamError):
    """The limiter's store does not answer: no calls (fail closed)."""
