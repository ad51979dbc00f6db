"""Admission: whom a record may speak for, by its merchant first and by its seal after that."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from schemas.seal import HEADER, Seals
from streams.admission import Admission, parse_merchants

NOW_MS = 1_800_000_000_000
GOOD_MS = 1000
VALUE = b"{}"
OURS, THEIRS = Seals(["ours " * 8]), Seals(["theirs " * 8])
GUARDED = Admission(frozenset({"shop", "acme"}), OURS, GOOD_MS)
NONE = Admission(frozenset(), OURS, GOOD_MS)


def sealed(seals: Seals = OURS, value: bytes = VALUE, at_ms: int = NOW_MS) -> tuple[tuple[str, bytes], ...]:
    return (("traceparent", b"00-1"), seals.header(value, at_ms), ("rehomed-from", b"1/2"))


@pytest.mark.parametrize(
    ("admission", "merchant", "headers", "refused"),
    [
        (Admission(), "mallory", (), None),
        (Admission(seals=OURS), "mallory", ((HEADER, b"junk"),), None),
        (GUARDED, "shop", (), None),
        (GUARDED, "acme", ((HEADER, b"junk"),), None),
        (GUARDED, "mallory", (), "does not name"),
        (GUARDED, "Shop", (), "does not name"),
        (GUARDED, "mallory", (("rehomed-from", b"1/2"),), "does not name"),
        (GUARDED, "mallory", sealed(), None),
        (NONE, "shop", sealed(), None),
        (NONE, "shop", (), "does not name"),
        (GUARDED, "mallory", ((HEADER, b""),), "not of these bytes"),
        (GUARDED, "mallory", ((HEADER, b"junk"),), "not of these bytes"),
        (GUARDED, "mallory", ((HEADER, None),), "does not name"),
        (GUARDED, "mallory", sealed(THEIRS), "not of these bytes"),
        (GUARDED, "mallory", sealed(value=b"{ }"), "not of these bytes"),
        (GUARDED, "mallory", ((HEADER, b"junk"), *sealed()), "not of these bytes"),
        (GUARDED, "mallory", sealed(at_ms=NOW_MS - GOOD_MS), None),
        (GUARDED, "mallory", sealed(at_ms=NOW_MS - GOOD_MS - 1), "older"),
        (GUARDED, "mallory", sealed(at_ms=NOW_MS + 60_000), None),
    ],
)
def test_who_may_be_named(
    admission: Admission, merchant: str, headers: Iterable[tuple[str, bytes | None]], refused: str | None
) -> None:
    found = admission.refusal(merchant, VALUE, headers, NOW_MS)
    assert (found is None) == (refused is None)
    assert (refused or "") in (found or "")
    assert merchant not in (found or "")


def test_the_seal_of_an_admitted_merchants_record_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hot path: intake's time for a command is dear."""
    monkeypatch.setattr(Seals, "sealed_at", lambda *_: pytest.fail("an HMAC for nothing"))
    assert GUARDED.refusal("shop", VALUE, sealed(), NOW_MS) is None
    assert Admission(seals=OURS).refusal("mallory", VALUE, sealed(), NOW_MS) is None


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("*", None),
        (" * ", None),
        ("", frozenset()),
        (" , ", frozenset()),
        ("shop", {"shop"}),
        (" shop , acme,shop,", {"shop", "acme"}),
    ],
)
def test_a_list_of_merchants_is_read(said: str, found: set[str] | None) -> None:
    assert parse_merchants(said) == found


@pytest.mark.parametrize("said", ["shop,*", "**", "shop acme", "sh\u00f6p", "x" * 65, "shop;acme"])
def test_what_is_no_merchant_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"must be \* or merchant ids"):
        parse_merchants(said)
