"""What each command leads to: pure plans over records and the memory of keys seen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.kafka.clients import partition_for
from ops.kafka.message import Message
from schemas import codec, command, identity, topics
from schemas.records import CommandType, PaymentCommand, PaymentEvent, PaymentTask, State, TaskKind
from streams import dedup
from streams.router import REHOMED, Plan, Record
from streams.share import LIMITS, Share
from tests.unit.streams.commands import (
    FIELDS,
    HOME,
    ID,
    KEY,
    NOW_MS,
    PAN,
    PARTITIONS,
    REMEMBERED,
    ROUTER,
    cancel,
    create,
    letter,
    planned,
    record,
    topics_of,
)


def test_a_new_payment_is_forwarded_told_as_pending_and_remembered() -> None:
    plan = planned(create())
    task_message, event_message = plan.messages
    assert (task_message.topic, task_message.key) == (topics.lane_topic("simulator"), KEY)
    assert (event_message.topic, event_message.key) == (topics.EVENTS, KEY)
    assert task_message.value is not None
    assert event_message.value is not None
    task, event = codec.decode(task_message.value, PaymentTask), codec.decode(event_message.value, PaymentEvent)
    assert (task.kind, task.attempt, task.amount_minor, task.lane) == (TaskKind.CREATE, 1, 1250, "simulator")
    assert (event.state, event.version, event.fingerprint) == (State.PENDING, 1, task.fingerprint)
    assert task.accepted_at_ms == event.at_ms == NOW_MS - 100
    seen = dedup.decode(plan.remember[KEY])
    assert (seen.partition, seen.offset, seen.seen_at_ms) == (HOME, 7, NOW_MS)
    assert plan.decisions == ["new"]


def test_a_replay_of_the_first_record_forwards_the_very_same_again() -> None:
    plan = ROUTER.plan([create()], REMEMBERED, NOW_MS + 5000)
    assert plan.messages == planned(create()).messages
    assert (plan.decisions, plan.remember) == (["replay"], {})


@pytest.mark.parametrize("offset", [0, 8, 1000])
def test_a_duplicate_leads_to_nothing(offset: int) -> None:
    plan = planned(create(offset), memory=REMEMBERED)
    assert (plan.messages, plan.remember, plan.decisions) == ([], {}, ["duplicate"])


@pytest.mark.parametrize(
    "change", [{"amount": "12.51"}, {"currency": "EUR"}, {"lane": "second"}, {"description": "x"}, {"customer_id": "c"}]
)
def test_another_payment_under_the_same_key_is_a_dead_letter_and_never_forwarded(change: dict[str, Any]) -> None:
    plan = planned(create(8, **change), memory=REMEMBERED)
    (message,) = plan.messages
    found = letter(message)
    assert (found.reason, found.payment_id, found.offset) == ("idempotency-conflict", ID, 8)
    assert message.key == f"{topics.COMMANDS}/{HOME}/8".encode()
    assert (plan.letters, plan.decisions) == (["idempotency-conflict"], ["dead-letter"])


def test_the_same_words_typed_another_way_are_a_duplicate_and_travel_in_one_form() -> None:
    first, again = create(7, description="Cafe\u0301"), create(8, description="Caf\u00e9")
    plan = planned(first, again)
    assert plan.decisions == ["new", "duplicate"]
    assert plan.messages[0].value is not None
    assert codec.decode(plan.messages[0].value, PaymentTask).description == "Caf\u00e9"


def test_what_was_seen_before_texts_were_normalised_is_still_seen() -> None:
    typed: dict[str, Any] = {"description": "Cafe\u0301"}
    seen = dedup.decode(planned(create(7, **typed)).remember[KEY])
    as_sent = identity.fingerprint(
        amount_minor=1250, currency="USD", payment_method="pm_approve", customer_id=None, metadata={}, lane=None,
        expires_at_ms=None, **typed,
    )  # fmt: skip
    old = {KEY: dedup.encode(seen._replace(fingerprint=as_sent))}
    assert planned(create(7, **typed), memory=old).decisions == ["replay"]
    assert planned(create(8, **typed), memory=old).decisions == ["duplicate"]
    assert planned(create(8, description="Cafes"), memory=old).letters == ["idempotency-conflict"]


def test_later_records_of_a_batch_see_what_earlier_ones_leave() -> None:
    plan = planned(create(7), create(8), create(9, amount="1.00"), cancel(10))
    assert plan.decisions == ["new", "duplicate", "dead-letter", "cancel"]
    assert dedup.decode(plan.remember[KEY]).offset == 7


def test_a_cancel_goes_to_the_lane_of_its_payment_with_what_is_remembered_of_it() -> None:
    memory = planned(create(lane="second")).remember
    (message,) = planned(cancel(), memory=memory).messages
    assert (message.topic, message.key) == (topics.cancel_topic("second"), KEY)
    assert message.value is not None
    task = codec.decode(message.value, PaymentTask)
    assert (task.kind, task.merchant_id, task.amount_minor) == (TaskKind.CANCEL, "shop", 1250)
    assert task.fingerprint == dedup.decode(memory[KEY]).fingerprint


@pytest.mark.parametrize(
    ("found", "memory"),
    [(cancel(), {}), (cancel(merchant_id="other"), REMEMBERED)],
    ids=["never seen", "of another merchant"],
)
def test_a_cancel_of_a_payment_that_is_not_there_is_a_dead_letter(found: Record, memory: dict[bytes, bytes]) -> None:
    (message,) = planned(found, memory=memory).messages
    assert letter(message).reason == "unknown-payment"


@pytest.mark.parametrize("partition", [p for p in range(PARTITIONS) if p != HOME])
def test_a_record_away_from_home_is_moved_there_once(partition: int) -> None:
    away = create(3, partition)
    (message,) = planned(away).messages
    assert (message.topic, message.partition, message.key) == (topics.COMMANDS, HOME, KEY)
    assert message.value == away.value
    assert message.headers == ((REHOMED, f"{partition}/3".encode()),)
    assert planned(away).remember == {}


def test_a_record_that_was_moved_and_is_still_away_is_a_dead_letter() -> None:
    away = replace(create(3, (HOME + 1) % PARTITIONS), headers=((REHOMED, b"0/1"),))
    assert letter(planned(away).messages[0]).reason == "not-home"


def test_a_moved_record_at_home_is_forwarded_and_its_forged_header_gains_nothing() -> None:
    forged = replace(create(8), headers=((REHOMED, b"forged"),))
    assert planned(forged).decisions == ["new"]
    assert planned(forged, memory=REMEMBERED).decisions == ["duplicate"]


def test_all_that_follows_from_a_record_belongs_to_its_trace() -> None:
    context = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    mine = (("x", b"y"), context)
    plan = planned(replace(create(7), headers=mine), replace(cancel(8), headers=mine), create(9, amount="1.00"),
                   replace(record(b"junk", 10), headers=mine))  # fmt: skip
    assert plan.decisions == ["new", "cancel", "dead-letter", "dead-letter"]
    assert [context in message.headers for message in plan.messages] == [True, True, True, False, True]
    assert planned(replace(create(7), headers=(("traceparent", b"junk"),))).messages[0].headers == ()


def test_headers_of_the_producer_travel_with_a_moved_record() -> None:
    away = replace(create(3, (HOME + 1) % PARTITIONS), headers=(("traceparent", b"00-1"),))
    assert planned(away).messages[0].headers[0] == ("traceparent", b"00-1")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "undecodable"),
        (b"\x00\xff garbage", "undecodable"),
        (b"{", "undecodable"),
        (b'{"type":"create","type":"create"}', "undecodable"),
        (b"{" + b'"a":{' * 100 + b"}" * 101, "undecodable"),
        (b'"text"', "undecodable"),
        (json.dumps(FIELDS | {"type": "refund"}).encode(), "invalid-field"),
        (json.dumps(FIELDS | {"amount": 12.5}).encode(), "invalid-field"),
        (json.dumps(FIELDS | {"surprise": "1"}).encode(), "unknown-field"),
        (json.dumps({k: v for k, v in FIELDS.items() if k != "amount"}).encode(), "missing-field"),
        (json.dumps(FIELDS | {"lane": "nowhere"}).encode(), "invalid-field"),
        (b"{" + b" " * command.MAX_BYTES + b"}", "too-large"),
    ],
)
def test_what_is_no_command_is_a_dead_letter_with_its_bytes(value: bytes, reason: str) -> None:
    (message,) = planned(record(value)).messages
    found = letter(message)
    assert found.reason == reason
    assert found.original_size == len(value)
    assert found.original == (value if len(value) <= 65536 else value[:4096])


@pytest.mark.parametrize("field", ["idempotency_key", "payment_method", "customer_id", "description", "metadata"])
def test_a_card_number_in_any_field_is_refused_and_kept_nowhere(field: str) -> None:
    text = PAN.replace(" ", "") if field in {"idempotency_key", "payment_method"} else f"card {PAN}"
    fields: dict[str, Any] = {field: {"note": text} if field == "metadata" else text}
    plan = planned(create(**fields))
    (message,) = plan.messages
    found = letter(message)
    assert (found.reason, found.original) == ("card-number", b"")
    assert plan.remember == {}
    for blob in (message.key or b"", message.value or b"", *(value for _, value in message.headers)):
        assert PAN.encode() not in blob
        assert PAN.replace(" ", "").encode() not in blob


def test_avro_and_json_of_the_same_payment_are_the_same_payment() -> None:
    asked = PaymentCommand(
        type=CommandType.CREATE,
        merchant_id="shop",
        idempotency_key="order-1",
        amount_minor=1250,
        currency="USD",
        payment_method="pm_approve",
        accepted_at_ms=NOW_MS - 9000,
    )
    plan = planned(record(codec.encode(asked), 8), memory=REMEMBERED)
    assert plan.decisions == ["duplicate"]
    seen = dedup.decode(planned(record(codec.encode(asked))).remember[KEY])
    assert seen.accepted_at_ms == NOW_MS - 9000
    forged = replace(asked, payment_id="00000000-0000-0000-0000-000000000000")
    assert planned(record(codec.encode(forged))).remember.keys() == {KEY}


AT_HOME = [key for n in range(3000) if partition_for(identity.payment_id("shop", key := f"k{n}").encode(), 12) == HOME]


def share() -> Share:
    return Share(("simulator", "second"))


def levels(plan: Plan, lane: str = "simulator") -> list[int]:
    """The level of each task, of a merchant whose queue in each level is known."""
    names = [topics.queue_topic(lane, n, topics.queue_number(n, "shop")) for n in range(len(topics.LEVELS))]
    found = [names.index(message.topic) for message in plan.messages if message.topic != topics.EVENTS]
    told = [
        codec.decode(message.value, PaymentEvent).level for message in plan.messages if message.topic == topics.EVENTS
    ]
    assert told == found
    return found


def test_what_a_merchant_has_waiting_decides_on_its_payments_queue() -> None:
    ours = Share(("simulator",), {"shop": 0.1})  # each of its payments counts for ten
    records = [create(n, idempotency_key=key) for n, key in enumerate(AT_HOME[:110])]
    assert levels(ROUTER.plan(records, {}, NOW_MS, ours)) == [0] * 2 + [1] * 11 + [2] * 90 + [3] * 7


def test_it_is_counted_on_from_batch_to_batch() -> None:
    ours, found = share(), []
    for n in range(LIMITS[0] + 2):
        found += levels(ROUTER.plan([create(n, idempotency_key=AT_HOME[n])], {}, NOW_MS, ours))
    assert found == [0] * LIMITS[0] + [1] * 2
    ours.done("simulator", 3, idle=False)
    assert levels(ROUTER.plan([create(90, idempotency_key=AT_HOME[90])], {}, NOW_MS, ours)) == [0]


def test_merchants_and_lanes_are_counted_apart_and_what_is_no_new_payment_is_not() -> None:
    ours = share()
    many = [create(n, idempotency_key=key) for n, key in enumerate(AT_HOME[: LIMITS[0]])]
    memory = ROUTER.plan(many[1:], {}, NOW_MS, ours).remember
    again = [replace(one, offset=one.offset + 50) for one in many[1:]]
    assert set(ROUTER.plan([*again, cancel(60), create(61, amount="x")], memory, NOW_MS, ours).decisions) == {
        "duplicate", "dead-letter",
    }  # fmt: skip
    assert levels(ROUTER.plan(many[:1], memory, NOW_MS, ours)) == [0], "fifteen were sent, once"
    key = next(k for n in range(3000) if partition_for(identity.payment_id("b", k := f"b{n}").encode(), 12) == HOME)
    others = [create(70, merchant_id="b", idempotency_key=key), create(71, idempotency_key=AT_HOME[50], lane="second")]
    found = topics_of(ROUTER.plan([*others, create(72, idempotency_key=AT_HOME[51])], {}, NOW_MS, ours))
    assert [name for name in found if name != topics.EVENTS] == [
        topics.lane_topic("simulator"), topics.lane_topic("second"), topics.queue_topic("simulator", 1),
    ]  # fmt: skip


def test_a_replay_may_choose_another_queue_but_never_another_task() -> None:
    """After a restart nobody remembers what the merchant had waiting."""
    ours = share()
    for _ in range(LIMITS[0]):
        ours.place("simulator", "shop")
    before, again = ROUTER.plan([create()], {}, NOW_MS, ours), ROUTER.plan([create()], REMEMBERED, NOW_MS, share())
    assert (levels(before), levels(again)) == ([1], [0])
    (task, said), (task_again, said_again) = ([m.value for m in plan.messages] for plan in (before, again))
    assert task == task_again
    assert replace(codec.decode(said, PaymentEvent), level=0) == codec.decode(said_again, PaymentEvent)


@given(st.binary(max_size=300), st.integers(0, 11))
def test_any_bytes_end_as_exactly_one_thing(value: bytes, partition: int) -> None:
    plan = planned(record(value, partition=partition))
    assert len(plan.decisions) == 1
    assert len(plan.messages) == len(plan.sources)


@given(st.lists(st.sampled_from([create(1), create(2), create(3, amount="9.00"), cancel(4)]), max_size=12))
def test_one_batch_is_as_good_as_many(records: list[Record]) -> None:
    """However the records are cut into batches, the same is published and remembered."""
    whole = ROUTER.plan(records, {}, NOW_MS, share())
    memory: dict[bytes, bytes] = {}
    ours = share()
    messages: list[Message] = []
    for each in records:
        plan = ROUTER.plan([each], memory, NOW_MS, ours)
        memory |= plan.remember
        messages += plan.messages
    assert (whole.messages, whole.remember) == (messages, memory)
