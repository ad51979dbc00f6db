"""Commands of producers: which merchants they reach, and what is told of those that they do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ops.kafka.clients import partition_for
from schemas import codec, command, identity, topics
from schemas.seal import HEADER, Seals
from streams.admission import Admission
from streams.router import Plan, Record
from tests.unit.streams.commands import (
    FIELDS,
    HOME,
    ID,
    NOW_MS,
    PARTITIONS,
    REMEMBERED,
    ROUTER,
    cancel,
    create,
    letter,
    record,
)

SEALS = Seals(["a secret of the tests' own, of 32 bytes"])
GUARDED = replace(ROUTER, admission=Admission(frozenset({"friend"}), SEALS, 1000))
"""Only ``friend`` may be named by producers: ``shop`` comes by way of the ingress."""


def sealed(found: Record, at_ms: int = NOW_MS) -> Record:
    return replace(found, headers=(*found.headers, SEALS.header(found.value, at_ms)))


def guarded(*records: Record, memory: dict[bytes, bytes] | None = None) -> Plan:
    return GUARDED.plan(records, memory or {}, NOW_MS)


BY_KEY: dict[str, Any] = {"payment_id": None, "merchant_id": "shop", "idempotency_key": "order-1"}
FRIENDS_KEY = identity.payment_id("friend", "order-1").encode()


def test_a_producers_command_of_a_merchant_that_is_not_admitted_is_a_dead_letter_and_touches_nothing() -> None:
    (message,) = (plan := guarded(create())).messages
    found = letter(message)
    assert (found.reason, found.topic, found.partition, found.offset) == (
        "merchant-not-admitted", topics.COMMANDS, HOME, 7,
    )  # fmt: skip
    assert (found.merchant_id, found.payment_id, found.original) == ("shop", ID, create().value)
    assert (plan.remember, plan.decisions, plan.letters) == ({}, ["dead-letter"], ["merchant-not-admitted"])
    assert message.key == f"{topics.COMMANDS}/{HOME}/7".encode()


@pytest.mark.parametrize(
    ("found", "decision", "reason"),
    [
        (create(8), "dead-letter", "merchant-not-admitted"),
        (create(8, amount="99.00"), "dead-letter", "merchant-not-admitted"),
        (record(codec.encode(command.from_json(FIELDS, lanes=frozenset(), accepted_at_ms=1))), "dead-letter",
         "merchant-not-admitted"),
        (sealed(create(8)), "duplicate", None),
        (sealed(create(8, amount="99.00")), "dead-letter", "idempotency-conflict"),
        (sealed(create(7)), "replay", None),
        (sealed(create(8), NOW_MS - 1001), "dead-letter", "merchant-not-admitted"),
        (replace(create(8), headers=sealed(create(8, amount="99.00")).headers), "dead-letter", "merchant-not-admitted"),
        (cancel(**BY_KEY), "dead-letter", "merchant-not-admitted"),
        (cancel(merchant_id="shop"), "dead-letter", "merchant-not-admitted"),
        (cancel(merchant_id="friend"), "dead-letter", "unknown-payment"),
        (cancel(), "dead-letter", "unknown-payment"),
        (sealed(cancel(**BY_KEY)), "cancel", None),
        (sealed(cancel(merchant_id="shop")), "cancel", None),
        (sealed(cancel()), "cancel", None),
        (create(8, merchant_id="friend", amount=12), "dead-letter", "invalid-field"),
    ],
)  # fmt: skip
def test_a_payment_that_is_there_is_reached_by_its_own_merchants_only(
    found: Record, decision: str, reason: str | None
) -> None:
    plan = guarded(found, memory=REMEMBERED)
    assert (plan.decisions, plan.letters) == ([decision], [reason] if reason else [])
    assert plan.remember == {}


def test_a_merchant_that_is_admitted_needs_no_seal() -> None:
    friend = create(merchant_id="friend", partition=partition_for(FRIENDS_KEY, PARTITIONS))
    memory = guarded(friend).remember
    assert memory.keys() == {FRIENDS_KEY}
    by_id = replace(cancel(payment_id=FRIENDS_KEY.decode()), partition=friend.partition)
    assert guarded(by_id, memory=memory).decisions == ["cancel"]


def test_a_cancel_of_anothers_payment_is_answered_as_one_of_no_payment() -> None:
    """Byte by byte: the letter must not tell whether the payment exists."""
    assert guarded(cancel(), memory=REMEMBERED).messages == guarded(cancel(), memory={}).messages
    assert guarded(cancel(**BY_KEY), memory=REMEMBERED).messages == guarded(cancel(**BY_KEY), memory={}).messages


def test_a_record_that_is_moved_home_keeps_its_seal() -> None:
    away = sealed(create(3, (HOME + 1) % PARTITIONS))
    (moved,) = guarded(away).messages
    assert (moved.topic, moved.partition) == (topics.COMMANDS, HOME)
    assert guarded(record(moved.value or b"", headers=moved.headers)).decisions == ["new"]


def test_what_is_not_admitted_is_not_moved_first_so_that_its_letter_names_the_record_that_was_sent() -> None:
    away = (HOME + 1) % PARTITIONS
    found = letter(guarded(create(3, away)).messages[0])
    assert (found.reason, found.partition, found.offset) == ("merchant-not-admitted", away, 3)


def test_a_letter_has_the_seal_of_its_record_and_nothing_that_is_too_long_for_one() -> None:
    ours = sealed(create(8, amount="99.00"))
    (message,) = guarded(ours, memory=REMEMBERED).messages
    assert dict(message.headers)[HEADER] == dict(ours.headers)[HEADER]
    huge = replace(create(8), headers=((HEADER, b"x" * 200_000),))
    (message,) = guarded(huge).messages
    assert HEADER not in dict(message.headers)
