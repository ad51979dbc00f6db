"""What a list of payments is asked for: filters and a place to go on from, out of a query string. Pure.

A cursor names the last payment of a page. It is bound to its merchant and filters, so that with others it is refused
and not misread; it needs no signature, since it only ever leads among the payments of whoever sends it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ingress.problem import Problem, named
from schemas import command as commands
from schemas.command import InvalidCommand
from schemas.records import State

LIMIT: Final = 50
LIMIT_MAX: Final = 100
VERSION_MAX: Final = 2**31 - 1
METADATA_MAX: Final = 3
"""Metadata filters of one request."""
FIRST: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LAST: Final = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)
"""No payment is accepted before or after: see schemas.command."""

_ONCE: Final = ("status", "lane", "customer_id", "created_from", "created_before", "limit", "cursor")
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_LANE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,40}", re.ASCII)
_WHOLE: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_CURSOR_BYTES: Final = 33
_FORMAT: Final = b"\x01"


class Place(NamedTuple):
    """A payment's place in a list; lists go from the newest to the oldest."""

    accepted_at: dt.datetime
    payment_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class Filters:
    """Which payments of a merchant are wanted; accepted from ``since`` on and before ``before``.

    A metadata value of None stands for: any. ``after`` is the last payment of the page before.
    """

    status: str | None = None
    lane: str | None = None
    customer_id: str | None = None
    metadata: tuple[tuple[str, str | None], ...] = ()
    since: dt.datetime = FIRST
    before: dt.datetime = LAST
    after: Place | None = None
    limit: int = LIMIT

    @property
    def end(self) -> Place:
        """Only payments before this place in time, so after it in the list."""
        return self.after or Place(self.before, uuid.UUID(int=0))


def parse(pairs: Iterable[tuple[str, str]], merchant_id: str) -> Filters:
    """The filters of a query string. Raises Problem 400 naming the parameter."""
    given: dict[str, str] = {}
    metadata: list[tuple[str, str | None]] = []
    for name, value in pairs:
        if name == "metadata":
            metadata.append(_metadata(value))
        elif name not in _ONCE:
            raise _wrong(named(name), "is not a parameter of this list")
        elif name in given:
            raise _wrong(name, "must be sent once")
        else:
            given[name] = value
    if len(metadata) > METADATA_MAX:
        raise _wrong("metadata", f"may be sent {METADATA_MAX} times")
    found = Filters(
        status=_one_of(given.get("status")),
        lane=_lane(given.get("lane")),
        customer_id=_customer(given.get("customer_id")),
        metadata=tuple(metadata),
        since=_moment("created_from", given.get("created_from")) or FIRST,
        before=_moment("created_before", given.get("created_before")) or LAST,
        limit=_whole("limit", given.get("limit", str(LIMIT)), 1, LIMIT_MAX),
    )
    if "cursor" in given:
        return replace(found, after=_decode(given["cursor"], _tag(found, merchant_id)))
    return found


def parse_events(pairs: Iterable[tuple[str, str]]) -> tuple[int, int]:
    """``after`` and ``limit`` of a query for events. Raises Problem 400 naming the parameter."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in ("after", "limit"):
            raise _wrong(named(name), "is not a parameter of this list")
        if name in given:
            raise _wrong(name, "must be sent once")
        given[name] = value
    after = _whole("after", given.get("after", "0"), 0, VERSION_MAX)
    return after, _whole("limit", given.get("limit", str(LIMIT_MAX)), 1, LIMIT_MAX)


def cursor(found: Filters, merchant_id: str, place: Place) -> str:
    """Names the last payment of a page: the next page begins after it."""
    micros = (place.accepted_at - FIRST) // _MICROSECOND
    raw = _FORMAT + _tag(found, merchant_id) + micros.to_bytes(8, "big") + place.payment_id.bytes
    return base64.urlsafe_b64encode(raw).decode()


def _decode(text: str, tag: bytes) -> Place:
    try:
        raw = base64.b64decode(text.encode("ascii"), b"-_", validate=True)
        if len(raw) != _CURSOR_BYTES or raw[:1] != _FORMAT:
            raise ValueError  # noqa: TRY301 - one sentence for all
        micros = int.from_bytes(raw[9:17], "big")
        place = Place(FIRST + micros * _MICROSECOND, uuid.UUID(bytes=raw[17:]))
    except (ValueError, OverflowError, binascii.Error) as error:
        raise _wrong("cursor", "must be a next_cursor of this list") from error
    if raw[1:9] != tag:
        raise _wrong("cursor", "belongs to other filters: send those of the page it came with")
    return place


def _tag(found: Filters, merchant_id: str) -> bytes:
    """Eight bytes of what a cursor is bound to: all but the page's size and the cursor itself."""
    bound = (merchant_id, found.status, found.lane, found.customer_id, found.metadata, found.since, found.before)
    return hashlib.blake2b(repr(bound).encode(), digest_size=8).digest()


def _wrong(name: str, detail: str) -> Problem:
    return Problem(400, "invalid-parameter", detail, field=name)


def _one_of(value: str | None) -> str | None:
    if value is not None and value not in State.__members__:
        raise _wrong("status", f"must be one of {', '.join(State)}")
    return value


def _lane(value: str | None) -> str | None:
    if value is not None and not _LANE.fullmatch(value):
        raise _wrong("lane", "must be a lane's name")
    return value


def _customer(value: str | None) -> str | None:
    if value is not None and (not 1 <= len(value) <= 128 or "\0" in value):  # noqa: PLR2004 - as in a create
        raise _wrong("customer_id", "must be a string of 1 to 128 characters")
    return value


def _metadata(value: str) -> tuple[str, str | None]:
    name, given, wanted = value.partition("=")
    if not _NAME.fullmatch(name):
        raise _wrong("metadata", "must be a key of A-Z a-z 0-9 _ . : -, or key=value")
    if len(wanted) > commands.MAX_TEXT or "\0" in wanted:
        raise _wrong("metadata", f"values must have at most {commands.MAX_TEXT} characters")
    return name, wanted if given else None


def _moment(name: str, value: str | None) -> dt.datetime | None:
    try:
        epoch_ms = commands.instant(name, value)
    except InvalidCommand as error:
        raise _wrong(name, f"{error.detail}; a + is written %2B") from error
    if epoch_ms is None:
        return None
    if not 0 <= epoch_ms <= commands.MAX_INSTANT_MS:
        raise _wrong(name, "must lie between the years 1970 and 9999, in UTC")
    return FIRST + dt.timedelta(milliseconds=epoch_ms)


def _whole(name: str, value: str, least: int, most: int) -> int:
    if not _WHOLE.fullmatch(value) or not least <= int(value) <= most:
        raise _wrong(name, f"must be a whole number from {least} to {most}")
    return int(value)
