"""Seals: made under one secret, known under each of a list, and good for one value only."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from schemas import seal
from schemas.seal import Seals

OLD, NEW, OTHER = "old-" * 8, "new-" * 8, "other-" * 8
NOW_MS = 1_800_000_000_000
VALUE = b'{"type": "create"}'
SEAL = Seals([OLD]).header(VALUE, NOW_MS)[1]
MOMENT, MAC = SEAL.split(b".")


@pytest.mark.parametrize(
    ("secrets", "value", "found", "at_ms"),
    [
        ([OLD], VALUE, SEAL, NOW_MS),
        ([NEW, OLD], VALUE, SEAL, NOW_MS),
        ([OLD, NEW], VALUE, SEAL, NOW_MS),
        ([NEW], VALUE, SEAL, None),
        ([OTHER, NEW], VALUE, SEAL, None),
        ([OLD], VALUE + b" ", SEAL, None),
        ([OLD], b"", SEAL, None),
        ([OLD], VALUE, b"1800000000001." + MAC, None),
        ([OLD], MOMENT[-1:] + b"." + VALUE, MOMENT[:-1] + b"." + MAC, None),
        ([OLD], VALUE, b"-" + SEAL, None),
        ([OLD], VALUE, b" " + SEAL, None),
        ([OLD], VALUE, MOMENT + b"." + MAC[:-1], None),
        ([OLD], VALUE, MOMENT + b"." + MAC.upper(), None),
        ([OLD], VALUE, MOMENT + b"." + b"\xff" * 64, None),
        ([OLD], VALUE, MOMENT + b".", None),
        ([OLD], VALUE, MAC, None),
        ([OLD], VALUE, b"." + MAC, None),
        ([OLD], VALUE, b"9" * 100_000 + b"." + MAC, None),
        ([OLD], VALUE, b"", None),
    ],
)
def test_a_seal_is_known_under_its_secret_and_for_its_value_only(
    secrets: list[str], value: bytes, found: bytes, at_ms: int | None
) -> None:
    assert Seals(secrets).sealed_at(value, found) == at_ms


def test_the_first_secret_seals_so_that_secrets_can_be_exchanged() -> None:
    during, before, after = Seals([NEW, OLD]), Seals([OLD]), Seals([NEW])
    assert after.sealed_at(VALUE, during.header(VALUE, NOW_MS)[1]) == NOW_MS
    assert before.sealed_at(VALUE, during.header(VALUE, NOW_MS)[1]) is None
    assert during.sealed_at(VALUE, before.header(VALUE, NOW_MS)[1]) == NOW_MS


def test_a_mac_that_another_part_makes_under_the_secret_is_no_seal() -> None:
    plain = hmac.digest(OLD.encode(), MOMENT + b"." + VALUE, hashlib.sha256).hex().encode()
    assert Seals([OLD]).sealed_at(VALUE, MOMENT + b"." + plain) is None


def test_a_seal_of_ours_is_renewed_and_no_other() -> None:
    ours = Seals([NEW, OLD])
    renewed = ours.renewed(VALUE, SEAL, NOW_MS + 5)
    assert Seals([NEW]).sealed_at(VALUE, renewed) == NOW_MS + 5
    assert Seals([OTHER]).renewed(VALUE, SEAL, NOW_MS + 5) == SEAL
    assert ours.renewed(VALUE, b"junk", NOW_MS) == b"junk"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ((), None),
        ((("traceparent", b"x"),), None),
        (((seal.HEADER, SEAL),), SEAL),
        ((("x", b"y"), (seal.HEADER, b"first"), (seal.HEADER, SEAL)), b"first"),
        (((seal.HEADER, None), (seal.HEADER, SEAL)), None),
        (((seal.HEADER, b"9" * 81),), None),
    ],
)
def test_one_header_may_be_the_seal(headers: tuple[tuple[str, bytes | None], ...], found: bytes | None) -> None:
    assert seal.of(headers) == found


@pytest.mark.parametrize("said", ["", " ", ",", " , "])
def test_no_secret_seals_nothing(said: str) -> None:
    assert seal.parse(said) is None


def test_secrets_stand_in_a_list() -> None:
    found = seal.parse(f" {OTHER} , {NEW},")
    assert found is not None
    assert Seals([OTHER]).sealed_at(VALUE, found.header(VALUE, NOW_MS)[1]) == NOW_MS
    assert found.sealed_at(VALUE, Seals([NEW]).header(VALUE, NOW_MS)[1]) == NOW_MS


def test_a_short_secret_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes") as found:
        seal.parse(f"{NEW},too-short-a-secret")
    assert "short-a" not in str(found.value)
    assert "new" not in str(found.value)
    assert "new" not in repr(Seals([NEW]))
