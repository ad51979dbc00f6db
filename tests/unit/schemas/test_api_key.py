"""API keys: their shape, what is read of them, and that nothing of one can be exchanged."""

from __future__ import annotations

import pytest

from schemas import api_key
from schemas.api_key import Mode

PEPPER = b"a pepper of the tests"
ID, KEY = api_key.write(Mode.TEST, bytes(range(8)), bytes(range(32)))


def test_a_key_is_mode_id_and_secret() -> None:
    assert ID == "0001020304050607"
    assert KEY == "kfy_test_0001020304050607.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert len(KEY) == 69
    assert api_key.key_id(KEY.encode()) == ID
    assert api_key.key_id(api_key.write(Mode.LIVE, bytes(8), bytes(32))[1].encode()) == "0" * 16


@pytest.mark.parametrize(
    "presented",
    [
        "", "x", KEY[:-1], KEY + "A", KEY + "\n", KEY.upper(), KEY.replace("test", "prod"), KEY.replace(".", ":"),
        KEY.replace("kfy", "sk"), " " + KEY, KEY.replace("0001", "000x"), KEY[:-1] + "é", "kfy_test_." + KEY[26:],
    ],
)  # fmt: skip
def test_what_is_no_key_has_no_id(presented: str) -> None:
    assert api_key.key_id(presented.encode()) is None


@pytest.mark.parametrize(
    "other",
    [KEY.replace("test", "live"), KEY.replace("_0001", "_0000"), KEY[:-1] + "9", KEY + "A", ""],
)
def test_every_part_of_a_key_is_signed(other: str) -> None:
    digest = api_key.digest(PEPPER, KEY.encode())
    assert len(digest) == 32
    assert digest == api_key.digest(PEPPER, KEY.encode())
    assert digest != api_key.digest(PEPPER, other.encode())
    assert digest != api_key.digest(b"another pepper", KEY.encode())


def test_a_huge_credential_costs_no_more_than_a_key() -> None:
    long = b"k" * api_key.LONGEST
    assert api_key.digest(PEPPER, long + b"x" * 100_000) == api_key.digest(PEPPER, long)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([], []), (["ops"], ["ops"]), (["ops", "payments:write", "ops"], ["payments:write", "ops"]),
        (["payments:read", "payments:write"], ["payments:write", "payments:read"]),
    ],
)  # fmt: skip
def test_scopes_are_kept_once_and_in_order(asked: list[str], found: list[str]) -> None:
    assert api_key.check_scopes(asked) == found


@pytest.mark.parametrize("scope", ["", "payments", "PAYMENTS:READ", "*"])
def test_an_unknown_scope_is_named(scope: str) -> None:
    with pytest.raises(ValueError, match="is not a scope"):
        api_key.check_scopes(["ops", scope])
