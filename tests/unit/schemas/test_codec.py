"""The wire format: what is written is read back; hostile bytes lead to DecodeError, at once and in little memory."""

from __future__ import annotations

import io
import json
import struct
import time
import tracemalloc
from dataclasses import MISSING, fields, replace
from typing import Any, get_type_hints

import avro.io
import avro.schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, registry
from schemas.codec import DecodeError, EncodeError
from schemas.records import (
    CommandType,
    DeadLetter,
    EventType,
    LimiterBeat,
    PaymentCommand,
    PaymentEvent,
    PaymentResult,
    PaymentTask,
    Record,
    State,
    TaskKind,
)

CLASSES: list[type[Any]] = [PaymentCommand, PaymentTask, PaymentEvent, PaymentResult, DeadLetter, LimiterBeat]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "bytes": st.binary(max_size=20),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "null": st.none(),
    "boolean": st.booleans(),
}


def _values(kind: Any, hint: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, list):
        return st.one_of([_values(branch, hint) for branch in kind])
    if isinstance(kind, str):
        return KINDS[kind]
    if kind["type"] == "enum":
        return st.sampled_from([hint(symbol) for symbol in kind["symbols"]])
    if kind["type"] == "map":
        return st.dictionaries(TEXT, TEXT, max_size=3)
    return KINDS[kind["type"]]


def records(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Any record of a class, its fields as its schema says."""
    hints = get_type_hints(cls)
    schema = registry.latest(cls.__name__).schema
    return st.builds(cls, **{field["name"]: _values(field["type"], hints[field["name"]]) for field in schema["fields"]})


ANY_RECORD = st.one_of([records(cls) for cls in CLASSES])


def varint(number: int) -> bytes:
    """A long as Avro writes it: zigzag, seven bits a byte."""
    rest, out = (number << 1) ^ (number >> 63), bytearray()
    rest &= 2**64 - 1
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


TASK = PaymentTask(
    kind=TaskKind.CREATE,
    payment_id="708dc109-baa7-5d64-8c50-df2a0f6cefae",
    merchant_id="shop",
    idempotency_key="order-1",
    fingerprint="f" * 64,
    amount_minor=1250,
    currency="USD",
    payment_method="pm_approve",
    metadata={"order": "7"},
    lane="simulator",
    accepted_at_ms=1_764_025_200_000,
)
LETTER = DeadLetter(
    reason="undecodable",
    detail="no",
    stage="intake",
    topic="payments.commands",
    partition=3,
    offset=17,
    original=b"\x00\xff",
    original_size=2,
    original_sha256="0" * 64,
    at_ms=1_764_025_200_000,
)
HEADER = struct.pack(">bI", 0, 1)
TO_METADATA = HEADER + varint(0) * 9  # a create with nothing in it, up to its metadata
SMALLEST = TO_METADATA + varint(0) * 4


@given(ANY_RECORD)
def test_every_record_is_read_back_as_it_was(record: Any) -> None:
    value = codec.encode(record)
    assert codec.decode(value, type(record)) == record
    assert codec.decode_any(value) == record


@given(ANY_RECORD)
def test_the_reference_implementation_reads_the_same(record: Any) -> None:
    value = codec.encode(record)
    entry = registry.latest(type(record).__name__)
    text = json.dumps(codec._physical(entry.schema))
    found = avro.io.DatumReader(avro.schema.parse(text)).read(avro.io.BinaryDecoder(io.BytesIO(value[5:])))
    assert isinstance(found, dict)
    assert found == {field.name: getattr(record, field.name) for field in fields(record)}


def test_a_values_bytes_never_change() -> None:
    """These lie in Kafka: magic 0, the schema's id, the body."""
    assert codec.encode(TASK) == (
        b"\x00\x00\x00\x00\x02\x00H708dc109-baa7-5d64-8c50-df2a0f6cefae\x08shop\x0eorder-1\x80\x01" + b"f" * 64 +
        b"\xc4\x13\x06USD\x14pm_approve\x00\x00\x02\norder\x027\x00\x12simulator\x00" + varint(1_764_025_200_000) +
        b"\x02\x00\x00"
    )  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
def test_a_dataclass_and_its_schema_have_the_same_fields_and_defaults(cls: type[Any]) -> None:
    ours = {field.name: field for field in fields(cls)}
    schema = registry.latest(cls.__name__).schema
    assert list(ours) == [field["name"] for field in schema["fields"]]
    for field in schema["fields"]:
        if "default" in field:
            mine = ours[field["name"]]
            default = mine.default if mine.default_factory is MISSING else mine.default_factory()
            assert default == field["default"], field["name"]


@pytest.mark.parametrize(
    ("record", "changes"),
    [
        (TASK, {"amount_minor": 1.0}),
        (TASK, {"amount_minor": 1.5}),
        (TASK, {"amount_minor": True}),
        (TASK, {"amount_minor": "1250"}),
        (TASK, {"amount_minor": None}),
        (TASK, {"amount_minor": 2**63}),
        (TASK, {"amount_minor": -(2**63) - 1}),
        (TASK, {"attempt": 2**31}),
        (TASK, {"attempt": -(2**31) - 1}),
        (TASK, {"expires_at_ms": 1.0}),
        (TASK, {"expires_at_ms": 2**63}),
        (TASK, {"kind": "other"}),
        (TASK, {"kind": None}),
        (TASK, {"merchant_id": 7}),
        (TASK, {"merchant_id": b"shop"}),
        (TASK, {"merchant_id": None}),
        (TASK, {"merchant_id": "secret\ud800"}),
        (TASK, {"description": 7}),
        (TASK, {"metadata": None}),
        (TASK, {"metadata": ["a"]}),
        (TASK, {"metadata": {"a": 1}}),
        (TASK, {"metadata": {"a": None}}),
        (TASK, {"metadata": {1: "a"}}),
        (LETTER, {"original": "text"}),
        (LETTER, {"original": None}),
        (LETTER, {"partition": 2**31}),
        (LETTER, {"offset": 0.0}),
        (LETTER, {"merchant_id": 7}),
    ],
)
def test_what_the_schema_cannot_carry_is_not_written(record: Record, changes: dict[str, Any]) -> None:
    with pytest.raises(EncodeError) as refused:
        codec.encode(replace(record, **changes))
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_text_is_its_utf_8() -> None:
    record = replace(TASK, description="caf\u00e9 \U0001f600", metadata={"\u4e2d": "\u6587"})
    assert codec.decode(codec.encode(record), PaymentTask) == record


HOSTILE: dict[str, bytes | None] = {
    "nothing": None,
    "empty": b"",
    "json": b"{}",
    "header only": HEADER,
    "short header": b"\x00\x00\x00",
    "other magic": b"\x01" + SMALLEST[1:],
    "negative magic": b"\xff" + SMALLEST[1:],
    "unknown id": struct.pack(">bI", 0, 999) + SMALLEST[5:],
    "huge id": struct.pack(">bI", 0, 2**32 - 1) + SMALLEST[5:],
    "another record's id": struct.pack(">bI", 0, 2) + SMALLEST[5:],
    "one byte short": SMALLEST[:-1],
    "one byte more": SMALLEST + b"\x00",
    "64 KiB more": SMALLEST + bytes(65536),
    "enum too large": HEADER + varint(2) + SMALLEST[6:],
    "enum huge": HEADER + varint(2**62) + SMALLEST[6:],
    "enum below": HEADER + varint(-3) + SMALLEST[6:],
    "union too large": HEADER + varint(0) + varint(2) + SMALLEST[7:],
    "union below": HEADER + varint(0) + varint(-3) + SMALLEST[7:],
    "string of 1 TiB": HEADER + varint(0) + varint(1) + varint(2**40),
    "string of 4 EiB": HEADER + varint(0) + varint(1) + varint(2**62),
    "string of 2 GiB": HEADER + varint(0) + varint(1) + varint(2**31) + b"a" * 100,
    "string below 0": HEADER + varint(0) + varint(1) + varint(-1) + SMALLEST[6:],
    "string far below 0": HEADER + varint(0) + varint(1) + varint(-(2**63)) + SMALLEST[6:],
    "not UTF-8": HEADER + varint(0) + varint(1) + varint(2) + b"\xff\xff" + SMALLEST[7:],
    "surrogate": HEADER + varint(0) + varint(1) + varint(3) + b"\xed\xa0\x80" + SMALLEST[7:],
    "endless varint": HEADER + b"\xff" * 65536,
    "overlong varint": HEADER + b"\xff" * 11 + b"\x01",
    "map of 2**40": TO_METADATA + varint(2**40),
    "map of 2**40 empty strings": TO_METADATA + varint(2**40) + bytes(65536),
    "map of 2**62 empty strings": TO_METADATA + varint(2**62) + bytes(65536),
    "map of -2**40": TO_METADATA + varint(-(2**40)) + varint(5) + bytes(65536),
    "map of -2**62": TO_METADATA + varint(-(2**62)) + varint(-1) + bytes(65536),
    "map of -2**63": TO_METADATA + varint(-(2**63)) + varint(5) + bytes(65536),
    "map of many blocks": TO_METADATA + (varint(1) + bytes(2)) * 20000,
    "map without end": TO_METADATA + (varint(1) + bytes(2)) * 3,
    "map key of 1 TiB": TO_METADATA + varint(1) + varint(2**40),
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_refused_at_once_and_in_little_memory(value: bytes | None) -> None:
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(DecodeError):
        codec.decode(value, PaymentCommand)
    spent_s, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent_s < 0.5
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize("limit", [2**31, 2**40, 2**62])
def test_bytes_of_a_huge_length_are_refused_too(limit: int) -> None:
    with pytest.raises(DecodeError):
        codec.decode(struct.pack(">bI", 0, 5) + varint(limit) + b"a" * 100, DeadLetter)


def test_an_int_wider_than_32_bits_is_refused_on_the_way_in() -> None:
    """fastavro reads it, Java does not, and PostgreSQL has no room for it."""
    value = codec.encode(replace(TASK, attempt=1))
    wide = value[:-3] + varint(2**31) + value[-2:]
    with pytest.raises(DecodeError, match="attempt"):
        codec.decode(wide, PaymentTask)


def test_a_map_in_blocks_with_sizes_is_read() -> None:
    """Java's blocking encoder writes a negative count and the block's size in bytes."""
    entry = varint(1) + b"a" + varint(1) + b"b"
    value = TO_METADATA + varint(-1) + varint(len(entry)) + entry + varint(0) + varint(0) * 3
    assert codec.decode(value, PaymentCommand) == PaymentCommand(type=CommandType.CREATE, metadata={"a": "b"})


def test_the_last_of_a_keys_values_counts() -> None:
    entries = varint(1) + b"a" + varint(1) + b"1" + varint(1) + b"a" + varint(1) + b"2"
    value = TO_METADATA + varint(2) + entries + varint(0) + varint(0) * 3
    assert codec.decode(value, PaymentCommand).metadata == {"a": "2"}


def _reads(value: bytes, cls: type[Any]) -> None:
    try:
        found = codec.decode(value, cls)
    except DecodeError as error:
        assert len(str(error)) < 100  # noqa: PT017 - both ends are fine
        return
    assert isinstance(found, cls)


@given(st.binary(max_size=120), st.sampled_from(CLASSES))
def test_any_body_is_a_record_or_a_decode_error(body: bytes, cls: type[Any]) -> None:
    _reads(body, cls)
    _reads(struct.pack(">bI", 0, registry.latest(cls.__name__).id) + body, cls)


@given(ANY_RECORD, st.data())
def test_a_damaged_record_is_a_record_or_a_decode_error(record: Any, data: st.DataObject) -> None:
    value = bytearray(codec.encode(record))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    _reads(bytes(value[: data.draw(st.integers(0, len(value)))]), type(record))
    _reads(bytes(value), type(record))


@given(ANY_RECORD, st.sampled_from(CLASSES))
def test_a_record_is_never_taken_for_another_kind(record: Any, cls: type[Any]) -> None:
    if not isinstance(record, cls):
        with pytest.raises(DecodeError):
            codec.decode(codec.encode(record), cls)


def test_enums_come_back_as_enums() -> None:
    event = PaymentEvent(
        type=EventType.CALL_FINISHED,
        version=3,
        state=State.UNKNOWN,
        payment_id=TASK.payment_id,
        merchant_id="shop",
        idempotency_key="order-1",
        fingerprint=TASK.fingerprint,
        amount_minor=1250,
        currency="USD",
        payment_method="pm_approve",
        lane="simulator",
        accepted_at_ms=1,
        at_ms=2,
    )
    found = codec.decode(codec.encode(event), PaymentEvent)
    assert found.type is EventType.CALL_FINISHED
    assert found.state is State.UNKNOWN
