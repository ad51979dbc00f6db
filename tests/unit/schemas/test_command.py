"""The rule book of commands: one verdict for HTTP bodies, JSON records and Avro records, and no value repeated."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, command, identity
from schemas.command import InvalidCommand
from schemas.records import CommandType, PaymentCommand

LANES = frozenset({"simulator", "telebirr"})
NOW_MS = 1_764_025_200_000
FIELDS: dict[str, Any] = {"merchant_id": "shop", "amount": "12.50", "currency": "USD", "payment_method": "pm_approve"}
VISA = "4111 1111 1111 1111"
AVRO = PaymentCommand(
    type=CommandType.CREATE,
    merchant_id="shop",
    idempotency_key="order-1",
    amount_minor=1250,
    currency="USD",
    payment_method="pm_approve",
)


def create(key: Any = "order-1", **changes: Any) -> PaymentCommand:
    fields = {name: value for name, value in {**FIELDS, **changes}.items() if value is not ...}
    return command.create(fields, idempotency_key=key, lanes=LANES, accepted_at_ms=NOW_MS)


def test_the_smallest_create_is_taken_and_gets_its_id() -> None:
    assert create() == replace(AVRO, payment_id=identity.payment_id("shop", "order-1"), accepted_at_ms=NOW_MS)


def test_the_largest_create_is_taken() -> None:
    found = create(
        key="k" * 255,
        merchant_id="m" * 64,
        amount="10000000000000.00",
        payment_method="p" * 128,
        customer_id="\u4e2d" * 128,
        description="d" * 499 + "\n",
        metadata={f"{number:0>40}"[::-1].replace("0", "k"): "v" * 500 for number in range(1, 21)},
        lane="telebirr",
        expires_at="9999-12-31T23:59:59.999Z",
    )
    assert codec.decode(codec.encode(found), PaymentCommand) == found
    assert len(codec.encode(found)) < command.MAX_BYTES


def test_three_ways_in_make_the_same_command() -> None:
    over_http = create()
    as_json = command.from_json(
        {"type": "create", "idempotency_key": "order-1", **FIELDS}, lanes=LANES, accepted_at_ms=NOW_MS
    )
    as_avro = command.check(replace(AVRO, accepted_at_ms=NOW_MS), lanes=LANES)
    assert over_http == as_json == as_avro
    assert command.fingerprint(over_http) == command.fingerprint(as_avro)


def test_a_creates_own_payment_id_is_never_believed() -> None:
    forged = replace(AVRO, payment_id=identity.payment_id("rival", "order-1"))
    assert command.check(forged, lanes=LANES).payment_id == identity.payment_id("shop", "order-1")


TOKEN = "must be a token of 1 to 128"
UNSAFE = "must not hold control, text-direction or invisible"
CASES: list[tuple[str, Any, str, str]] = [
    # field, value, code, part of the sentence
    ("merchant_id", ..., "missing-field", "is required"),
    ("merchant_id", None, "missing-field", "is required"),
    ("merchant_id", "", "invalid-field", "1 to 64"),
    ("merchant_id", "m" * 65, "invalid-field", "1 to 64"),
    ("merchant_id", "sh op", "invalid-field", "1 to 64"),
    ("merchant_id", "shop\n", "invalid-field", "1 to 64"),
    ("merchant_id", "caf\u00e9", "invalid-field", "1 to 64"),
    ("merchant_id", "a:b", "invalid-field", "1 to 64"),
    ("merchant_id", 7, "invalid-field", "1 to 64"),
    ("merchant_id", "4111111111111111", "card-number", "card number"),
    ("merchant_id", "shop-4111-1111-1111-1111", "card-number", "card number"),
    ("amount", ..., "missing-field", "is required"),
    ("amount", None, "missing-field", "is required"),
    ("amount", 12.5, "invalid-field", "not a number"),
    ("amount", 12, "invalid-field", "not a number"),
    ("amount", True, "invalid-field", "not a number"),
    ("amount", [], "invalid-field", "not a number"),
    ("amount", "0", "invalid-field", "greater than zero"),
    ("amount", "-1", "invalid-field", "plain decimal"),
    ("amount", "12.505", "invalid-field", "more decimals"),
    ("amount", "10000000000000.01", "invalid-field", "at most"),
    ("amount", "4222222222222", "card-number", "card number"),
    ("amount", "3782822463100.05", "card-number", "card number"),
    ("amount", "422222222222.2", "card-number", "card number"),
    ("currency", ..., "missing-field", "is required"),
    ("currency", "", "invalid-field", "ISO 4217"),
    ("currency", "usd", "invalid-field", "ISO 4217"),
    ("currency", "XXX", "invalid-field", "ISO 4217"),
    ("currency", 840, "invalid-field", "must be a string"),
    ("currency", ["USD"], "invalid-field", "must be a string"),
    ("payment_method", ..., "missing-field", "is required"),
    ("payment_method", "", "invalid-field", TOKEN),
    ("payment_method", "p" * 129, "invalid-field", TOKEN),
    ("payment_method", "pm approve", "invalid-field", TOKEN),
    ("payment_method", "pm_approve\n", "invalid-field", TOKEN),
    ("payment_method", {}, "invalid-field", TOKEN),
    ("payment_method", "4111111111111111", "card-number", "card number"),
    ("payment_method", "card:4111-1111-1111-1111", "card-number", "card number"),
    ("customer_id", "", "invalid-field", "1 to 128"),
    ("customer_id", "c" * 129, "invalid-field", "1 to 128"),
    ("customer_id", 7, "invalid-field", "1 to 128"),
    ("customer_id", VISA, "card-number", "card number"),
    ("description", "", "invalid-field", "1 to 500"),
    ("description", "d" * 501, "invalid-field", "1 to 500"),
    ("description", ["d"], "invalid-field", "1 to 500"),
    ("description", f"paid with {VISA}, thanks", "card-number", "card number"),
    ("description", "\u0664\u0661\u0661\u0661" + "\u0661" * 12, "card-number", "card number"),
    ("description", "a\x00b", "invalid-field", UNSAFE),
    ("description", "a\x1bb", "invalid-field", UNSAFE),
    ("description", "a\rb", "invalid-field", UNSAFE),
    ("description", "a\x7fb", "invalid-field", UNSAFE),
    ("description", "a\x85b", "invalid-field", UNSAFE),
    ("description", "a\x9fb", "invalid-field", UNSAFE),
    ("description", "a\u061cb", "invalid-field", UNSAFE),
    ("description", "a\u200eb", "invalid-field", UNSAFE),
    ("description", "a\u202eb", "invalid-field", UNSAFE),
    ("description", "a\u2066b", "invalid-field", UNSAFE),
    ("description", "a\u2069b", "invalid-field", UNSAFE),
    ("description", "a\u2028b", "invalid-field", UNSAFE),
    ("description", "a\u2029b", "invalid-field", UNSAFE),
    ("description", "a\ud800b", "invalid-field", UNSAFE),
    ("description", "a\udfffb", "invalid-field", UNSAFE),
    ("description", "a\u200bb", "invalid-field", UNSAFE),
    ("description", "a\U000e0041b", "invalid-field", UNSAFE),
    ("description", "\ufb2c" * 200, "invalid-field", "NFC"),
    ("customer_id", "cust\ufeff", "invalid-field", UNSAFE),
    ("metadata.order", {"order": "1\u200d2"}, "invalid-field", UNSAFE),
    ("metadata", [], "invalid-field", "object of strings"),
    ("metadata", "a=b", "invalid-field", "object of strings"),
    ("metadata", {f"k{number}": "v" for number in range(21)}, "invalid-field", "at most 20"),
    ("metadata", {"": "v"}, "invalid-field", "keys must be"),
    ("metadata", {"k" * 41: "v"}, "invalid-field", "keys must be"),
    ("metadata", {"a b": "v"}, "invalid-field", "keys must be"),
    ("metadata", {"\u202e": "v"}, "invalid-field", "keys must be"),
    ("metadata", {7: "v"}, "invalid-field", "keys must be"),
    ("metadata", {"4111-1111-1111-1111": "v"}, "card-number", "card number"),
    ("metadata.order", {"order": None}, "invalid-field", "must be a string"),
    ("metadata.order", {"order": 7}, "invalid-field", "1 to 500"),
    ("metadata.order", {"order": {"a": "b"}}, "invalid-field", "1 to 500"),
    ("metadata.order", {"order": ""}, "invalid-field", "1 to 500"),
    ("metadata.order", {"order": "v" * 501}, "invalid-field", "1 to 500"),
    ("metadata.order", {"order": "\x00"}, "invalid-field", UNSAFE),
    ("metadata.order", {"order": VISA}, "card-number", "card number"),
    ("lane", "", "invalid-field", "not a lane"),
    ("lane", "other", "invalid-field", "not a lane"),
    ("lane", "Simulator", "invalid-field", "not a lane"),
    ("lane", "simulator\n", "invalid-field", "not a lane"),
    ("lane", 7, "invalid-field", "not a lane"),
    ("lane", ["simulator"], "invalid-field", "not a lane"),
    ("expires_at", "", "invalid-field", "RFC 3339"),
    ("expires_at", 7, "invalid-field", "RFC 3339"),
    ("expires_at", "2026-02-28", "invalid-field", "RFC 3339"),
    ("expires_at", "2026-02-28T12:00:00", "invalid-field", "RFC 3339"),  # without an offset
    ("expires_at", "2026-01-31T12:00Z", "invalid-field", "RFC 3339"),
    ("expires_at", "20260131T120000Z", "invalid-field", "RFC 3339"),  # ISO 8601, and Python reads it
    ("expires_at", "2026-W05-6T12:00:00Z", "invalid-field", "RFC 3339"),
    ("expires_at", "2026-01-31T12:00:00,5Z", "invalid-field", "RFC 3339"),
    ("expires_at", "2026-02-30T12:00:00Z", "invalid-field", "RFC 3339"),
    ("expires_at", "2026-01-31T24:00:01Z", "invalid-field", "RFC 3339"),
    ("expires_at", "2026-01-31T12:00:60Z", "invalid-field", "RFC 3339"),
    ("expires_at", "2026-01-31T12:00:00+24:00", "invalid-field", "RFC 3339"),
    ("expires_at", "2026-01-31T12:00:00Z\n", "invalid-field", "RFC 3339"),
    ("expires_at", "0000-01-01T00:00:00Z", "invalid-field", "RFC 3339"),
    ("expires_at", "10000-01-01T00:00:00Z", "invalid-field", "RFC 3339"),
    ("expires_at", "\u0662\u0660\u0662\u0666-01-31T12:00:00Z", "invalid-field", "RFC 3339"),
    ("expires_at", "2026-01-31T12:00:00." + "9" * 65000 + "Z", "invalid-field", "RFC 3339"),
    ("expires_at", "0001-01-01T00:00:00+23:59", "invalid-field", "1970"),
    ("expires_at", "0001-01-01T00:00:00Z", "invalid-field", "1970"),
    ("expires_at", "1969-12-31T23:59:59.999Z", "invalid-field", "1970"),
    ("expires_at", "9999-12-31T23:59:59-00:01", "invalid-field", "9999"),
    ("expires_at", "9999-12-31T23:59:59-23:59", "invalid-field", "9999"),
    # not fields at all
    ("secret", "x", "unknown-field", "not a field"),
    ("payment_id", "x", "unknown-field", "not a field"),
    ("type", "create", "unknown-field", "not a field"),
    ("(unnamed)", {}, "unknown-field", "not a field"),
]


@pytest.mark.parametrize(("field", "value", "code", "says"), CASES)
def test_a_broken_rule_names_the_field_and_not_the_value(field: str, value: Any, code: str, says: str) -> None:
    name = "n\u202e" if field == "(unnamed)" else field.partition(".")[0]
    with pytest.raises(InvalidCommand) as refused:
        create(**{name: value})
    assert (refused.value.field, refused.value.code) == (field, code)
    assert says in refused.value.detail
    if isinstance(value, str) and len(value) > 6:
        assert value not in str(refused.value)


@pytest.mark.parametrize("name", ["4111111111111111", "x" * 65000, "\x00", "", "\ud800", "a\nb", "a b"])
def test_a_strange_fields_name_is_not_repeated(name: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        create(**{name: "x"})
    assert refused.value.code == "unknown-field"
    assert len(refused.value.field) <= 64
    assert refused.value.field.isprintable()
    assert "4111" not in refused.value.field


@pytest.mark.parametrize(
    ("key", "code"),
    [(None, "invalid-field"), ("", "invalid-field"), ("k" * 256, "invalid-field"), ("a b", "invalid-field"),
     ("caf\u00e9", "invalid-field"), ("k\n", "invalid-field"), ("\x7f", "invalid-field"), (7, "invalid-field"),
     ("4111111111111111", "card-number"), ("order/4111_1111_1111_1111", "card-number")],
)  # fmt: skip
def test_a_key_is_visible_ascii_and_no_card_number(key: Any, code: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        create(key=key)
    assert (refused.value.field, refused.value.code) == ("idempotency_key", code)


@pytest.mark.parametrize(
    "key",
    ["1", "!~", "k" * 255, "1764025200008", "110bd412-1111-4111-8111-111111111111", "2026-11-24-0001234",
     "1000000000000008", "1099511627776008", "04111111111111111"],
)  # fmt: skip
def test_the_keys_that_people_use_are_taken(key: str) -> None:
    assert create(key=key).idempotency_key == key


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        ("2026-01-31t12:00:00z", 1_769_860_800_000),
        ("2026-01-31 12:00:00Z", 1_769_860_800_000),
        ("2026-01-31T15:00:00+03:00", 1_769_860_800_000),
        ("2026-01-31T12:00:00.5Z", 1_769_860_800_500),
        ("2026-01-31T12:00:00.123456789Z", 1_769_860_800_123),
        ("2026-01-31T12:00:00.999999-00:00", 1_769_860_800_999),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("9999-12-31T23:59:59.999Z", command.MAX_INSTANT_MS),
    ],
)
def test_a_deadline_is_read_to_the_millisecond(text: str, ms: int) -> None:
    assert create(expires_at=text).expires_at_ms == ms


def test_no_lanes_configured_stands_for_any_well_formed_one() -> None:
    assert command.check(replace(AVRO, lane="other"), lanes=frozenset()).lane == "other"
    for lane in ("Other", "-a", "a.b", "a" * 33, "", "4111111111111111"):
        with pytest.raises(InvalidCommand):
            command.check(replace(AVRO, lane=lane), lanes=frozenset())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount_minor": None}, "amount"),
        ({"amount_minor": 0}, "amount"),
        ({"amount_minor": -(2**63)}, "amount"),
        ({"amount_minor": 2**63 - 1}, "amount"),
        ({"amount_minor": 1.5}, "amount"),
        ({"amount_minor": True}, "amount"),
        ({"amount_minor": "1250"}, "amount"),
        ({"amount_minor": 378282246310005}, "amount"),
        ({"currency": None}, "currency"),
        ({"currency": 7}, "currency"),
        ({"currency": "ZZZ"}, "currency"),
        ({"payment_method": None}, "payment_method"),
        ({"merchant_id": None}, "merchant_id"),
        ({"idempotency_key": None}, "idempotency_key"),
        ({"customer_id": ""}, "customer_id"),
        ({"metadata": {"a": "\x00"}}, "metadata.a"),
        ({"metadata": {str(number): "v" for number in range(21)}}, "metadata"),
        ({"expires_at_ms": -1}, "expires_at"),
        ({"expires_at_ms": 2**63 - 1}, "expires_at"),
        ({"expires_at_ms": 1.5}, "expires_at"),
        ({"accepted_at_ms": -1}, "accepted_at"),
        ({"accepted_at_ms": 2**63 - 1}, "accepted_at"),
        ({"accepted_at_ms": True}, "accepted_at"),
    ],
)
def test_a_direct_producers_record_passes_the_same_rules(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        command.check(replace(AVRO, **changes), lanes=LANES)
    assert refused.value.field == field


CANCEL = {"type": "cancel"}
PAYMENT_ID = identity.payment_id("shop", "order-1")


@pytest.mark.parametrize(
    "fields",
    [{"payment_id": PAYMENT_ID}, {"merchant_id": "shop", "idempotency_key": "order-1"},
     {"payment_id": PAYMENT_ID, "merchant_id": "shop"}],
)  # fmt: skip
def test_a_cancel_names_its_payment_by_id_or_by_key(fields: dict[str, Any]) -> None:
    found = command.from_json({**CANCEL, **fields}, lanes=LANES, accepted_at_ms=NOW_MS)
    assert (found.type, found.payment_id) == (CommandType.CANCEL, PAYMENT_ID)


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({}, "payment_id", "missing-field"),
        ({"merchant_id": "shop"}, "payment_id", "missing-field"),
        ({"idempotency_key": "order-1"}, "payment_id", "missing-field"),
        ({"payment_id": ""}, "payment_id", "invalid-field"),
        ({"payment_id": PAYMENT_ID.upper()}, "payment_id", "invalid-field"),
        ({"payment_id": PAYMENT_ID.replace("-", "")}, "payment_id", "invalid-field"),
        ({"payment_id": f"{{{PAYMENT_ID}}}"}, "payment_id", "invalid-field"),
        ({"payment_id": f"urn:uuid:{PAYMENT_ID}"}, "payment_id", "invalid-field"),
        ({"payment_id": PAYMENT_ID + "\n"}, "payment_id", "invalid-field"),
        ({"payment_id": "x" * 65000}, "payment_id", "invalid-field"),
        ({"payment_id": 7}, "payment_id", "invalid-field"),
        ({"payment_id": [PAYMENT_ID]}, "payment_id", "invalid-field"),
        ({"payment_id": "41111111-1111-1111-0000-000000000000"}, "payment_id", "card-number"),
        ({"merchant_id": "s hop", "idempotency_key": "order-1"}, "merchant_id", "invalid-field"),
        ({"merchant_id": "shop", "idempotency_key": ""}, "idempotency_key", "invalid-field"),
        ({"payment_id": PAYMENT_ID, "amount": "1"}, "(body)", "unknown-field"),
        ({"payment_id": PAYMENT_ID, "metadata": {}}, "(body)", "unknown-field"),
        ({"payment_id": PAYMENT_ID, "merchant_id": 7}, "merchant_id", "invalid-field"),
        ({"payment_id": PAYMENT_ID, "merchant_id": "4111111111111111"}, "merchant_id", "card-number"),
        ({"payment_id": PAYMENT_ID, "idempotency_key": VISA}, "idempotency_key", "invalid-field"),
    ],
)
def test_a_cancel_that_names_no_payment_is_refused(fields: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        command.from_json({**CANCEL, **fields}, lanes=LANES, accepted_at_ms=NOW_MS)
    assert (refused.value.field, refused.value.code) == (field, code)


def test_a_cancels_other_fields_are_dropped() -> None:
    """A direct producer may fill a cancel with anything; nobody reads it, so nobody has to check it."""
    stuffed = replace(AVRO, type=CommandType.CANCEL, description=VISA, metadata={"a": VISA}, customer_id=VISA, lane="x")
    found = command.check(stuffed, lanes=LANES)
    assert found == PaymentCommand(
        type=CommandType.CANCEL, payment_id=PAYMENT_ID, merchant_id="shop", idempotency_key="order-1"
    )


@pytest.mark.parametrize(
    "fields", [None, [], "create", 7, {}, {"type": None}, {"type": "CREATE"}, {"type": ["create"]}, {"type": {"a": 1}}]
)
def test_a_json_record_is_a_create_or_a_cancel(fields: Any) -> None:
    with pytest.raises(InvalidCommand) as refused:
        command.from_json(fields, lanes=LANES, accepted_at_ms=NOW_MS)
    assert refused.value.field in {"(body)", "type"}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30) | st.just(VISA),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=2)
    ),
    max_leaves=4,
)
NAMES = st.sampled_from([*sorted(command.CREATE_FIELDS), "type", "payment_id", "idempotency_key"])


@given(
    st.dictionaries(NAMES | st.text(max_size=5), ANYTHING),
    st.sampled_from(["create", "cancel", "other"]),
    st.booleans(),
)
def test_any_fields_make_a_command_that_can_be_sent_or_invalid_command(
    fields: dict[str, Any], kind: str, complete: bool
) -> None:
    if complete:
        fields = {**FIELDS, "idempotency_key": "order-1", **fields}
    try:
        found = command.from_json({**fields, "type": kind}, lanes=LANES, accepted_at_ms=NOW_MS)
    except InvalidCommand as refused:
        said = str(refused)
    else:
        said = ""
        assert codec.decode(codec.encode(found), PaymentCommand) == found
        assert b"4111 1111" not in codec.encode(found)
    assert "4111" not in said


@pytest.mark.parametrize("text", ["7" * 500, "1 " * 250, "\u0661\u200b" * 250, "\ufdfa" * 500])
def test_the_worst_command_is_judged_within_milliseconds(text: str) -> None:
    worst = {"description": text, "metadata": {f"k{number}": text for number in range(20)}}
    start = time.process_time()
    with contextlib.suppress(InvalidCommand):
        create(**worst)
    assert time.process_time() - start < 0.5


CAFE, CAFE_AS_TYPED_ON_A_MAC = "Caf\u00e9", "Cafe\u0301"


@pytest.mark.parametrize("field", ["customer_id", "description", "metadata"])
def test_the_same_words_are_the_same_payment_however_they_were_typed(field: str) -> None:
    one, other = (
        create(**{field: {"place": word} if field == "metadata" else word}) for word in (CAFE, CAFE_AS_TYPED_ON_A_MAC)
    )
    assert one != other
    assert command.fingerprint(one) == command.fingerprint(other)
    assert command.normalised(other) == one


def test_a_payment_from_before_texts_were_normalised_is_known_by_its_text_as_sent() -> None:
    sent = create(description=CAFE_AS_TYPED_ON_A_MAC)
    values = {name: getattr(sent, name) for name in ("currency", "payment_method", "customer_id", "description",
                                                     "metadata", "lane", "expires_at_ms")}  # fmt: skip
    before = identity.fingerprint(amount_minor=sent.amount_minor or 0, **values)
    assert before != command.fingerprint(sent)
    assert command.fingerprint(sent, stored=before) == before
    assert command.fingerprint(sent, stored="0" * 64) == command.fingerprint(sent)
    assert command.fingerprint(create(description=CAFE), stored=before) != before
    assert command.fingerprint(create(description="other"), stored=before) != before


def test_fingerprints_of_plain_text_are_what_they_always_were() -> None:
    assert command.fingerprint(create(description="Order 1001", metadata={"order": "1001"})) == (
        "8490e915d87117713c07abce1cfeae0c3d10b348393d441508e523fdba6352bb"
    )
