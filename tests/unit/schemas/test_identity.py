"""Who a payment is: the same everywhere and for ever, and never the same for two different ones."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import identity

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
BUSINESS: dict[str, Any] = {
    "amount_minor": 1250,
    "currency": "USD",
    "payment_method": "pm_approve",
    "customer_id": None,
    "description": None,
    "metadata": {},
    "lane": None,
    "expires_at_ms": None,
}


@pytest.mark.parametrize(
    ("merchant", "key", "payment_id"),
    [
        ("shop", "order-1", "708dc109-baa7-5d64-8c50-df2a0f6cefae"),
        ("a:b", "c", "199986a6-f37b-5a97-b335-9131030e5656"),
        ("a", "b:c", "665b81bd-fcfa-59a9-ac7d-771c056de5db"),
        ("shop", "caf\u00e9", "ca2fa5d2-31af-553f-979e-e578b42ae5e7"),
    ],
)
def test_an_id_never_changes(merchant: str, key: str, payment_id: str) -> None:
    """These are in merchants' books and in Kafka: a change here charges people twice."""
    assert identity.payment_id(merchant, key) == payment_id


@given(st.text(max_size=80), st.text(max_size=80))
def test_an_id_is_a_version_5_uuid_of_the_pair(merchant: str, key: str) -> None:
    pair = b"".join(b"%d:%s" % (len(part), part) for part in (merchant.encode(), key.encode()))
    digest = hashlib.sha1(identity.NAMESPACE.bytes + pair, usedforsecurity=False).digest()
    assert identity.payment_id(merchant, key) == str(uuid.UUID(bytes=digest[:16], version=5))


def test_an_id_is_a_uuid_of_version_5_over_the_length_prefixed_pair() -> None:
    found = uuid.UUID(identity.payment_id("shop", "order-1"))
    assert found.version == 5
    assert found == uuid.uuid5(identity.NAMESPACE, "4:shop7:order-1")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a:b", "c"), ("a", "b:c")),
        (("ab", "c"), ("a", "bc")),
        (("1:a", "b"), ("1", ":ab")),
        (("a1:", "b"), ("a", "1:b")),
        (("", "a"), ("a", "")),
        (("shop", "K"), ("shop", "k")),
        (("caf\u00e9", "1"), ("cafe\u0301", "1")),
    ],
)
def test_two_pairs_never_share_an_id(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert identity.payment_id(*one) != identity.payment_id(*other)


@given(TEXT, TEXT, TEXT, TEXT)
def test_ids_are_equal_for_equal_pairs_only(a: str, b: str, c: str, d: str) -> None:
    assert (identity.payment_id(a, b) == identity.payment_id(c, d)) == ((a, b) == (c, d))


@pytest.mark.parametrize(
    ("changes", "digest"),
    [
        ({}, "d535dcd667226a1ebed24304cc25415ab4ef91fc7882f2bade3d49820c664cab"),
        (
            {"metadata": {"b": "2", "a": "1"}, "description": "two", "expires_at_ms": 1_800_000_000_000},
            "3f3920194ddf317b6d9815be56a9e06429c09333459e9708c095a52dec3003e5",
        ),
    ],
)
def test_a_fingerprint_never_changes(changes: dict[str, Any], digest: str) -> None:
    assert identity.fingerprint(**{**BUSINESS, **changes}) == digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount_minor", 1251),
        ("currency", "EUR"),
        ("payment_method", "pm_other"),
        ("customer_id", "c"),
        ("customer_id", ""),
        ("description", ""),
        ("description", "x"),
        ("metadata", {"a": ""}),
        ("metadata", {"": "a"}),
        ("lane", "simulator"),
        ("expires_at_ms", 0),
        ("expires_at_ms", 1),
    ],
)
def test_every_business_field_counts_in_the_fingerprint(field: str, value: object) -> None:
    assert identity.fingerprint(**{**BUSINESS, field: value}) != identity.fingerprint(**BUSINESS)


def test_the_order_of_metadata_does_not_count() -> None:
    one = identity.fingerprint(**{**BUSINESS, "metadata": {"a": "1", "b": "2"}})
    assert one == identity.fingerprint(**{**BUSINESS, "metadata": {"b": "2", "a": "1"}})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"customer_id": "x"}, {"description": "x"}),
        ({"metadata": {"a": "b", "c": "d"}}, {"metadata": {"a": "bc", "": "d"}}),
        ({"metadata": {"ab": "c"}}, {"metadata": {"a": "bc"}}),
        ({"lane": "1"}, {"expires_at_ms": 1}),
        ({"currency": "USDx", "payment_method": "y"}, {"currency": "USD", "payment_method": "xy"}),
    ],
)
def test_a_value_in_another_field_is_another_payment(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert identity.fingerprint(**{**BUSINESS, **one}) != identity.fingerprint(**{**BUSINESS, **other})
