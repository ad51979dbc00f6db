"""Intake on a real broker, where producers may name one merchant only and the ingress's seal vouches for the others."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from ingress.commands import Commands, sealed
from ops.kafka.admin import create_topics
from ops.kafka.clients import Message, Publisher, partition_for
from ops.local.ports import free_port
from ops.local.stack import Stack
from schemas import codec, identity, seal, topics
from schemas.command import from_json
from schemas.records import State
from schemas.seal import Seals
from tests.integration.roles import (
    OUTPUTS,
    PARTITIONS,
    Arrived,
    environment,
    process,
    settings_of,
    until,
    until_ready,
    watching,
)
from tests.integration.shell import Shell

pytestmark = pytest.mark.kafka

LANE = "admissiontest"
COMMAND_PARTITIONS = 12
FRIEND, OTHER = "friend", "acme"
OLD, NEW = "an old secret of the tests and their own", "a new secret of the tests and their own"
SEALS = Seals([OLD])
"""The ingress seals under the old one still, and intake knows both: the midst of an exchange."""


def create(merchant: str, key: str, **changes: Any) -> dict[str, Any]:
    fields = {"merchant_id": merchant, "amount": "12.50", "currency": "USD", "payment_method": "pm_approve"}
    return {"type": "create", "idempotency_key": key, **fields, **changes}


def as_json(fields: dict[str, Any], partition: int | None = None) -> Message:
    return Message(topics.COMMANDS, b"any key", json.dumps(fields).encode(), partition=partition)


def as_avro(fields: dict[str, Any]) -> Message:
    command = from_json(fields, lanes=frozenset(), accepted_at_ms=time.time_ns() // 1_000_000)
    return Message(topics.COMMANDS, (command.payment_id or "").encode(), codec.encode(command))


def id_of(fields: dict[str, Any]) -> str:
    return identity.payment_id(fields["merchant_id"], fields["idempotency_key"])


def new(merchant: str, **changes: Any) -> dict[str, Any]:
    return create(merchant, uuid.uuid4().hex, **changes)


def stamped(message: Message) -> Message:
    (found,) = sealed([message], SEALS, time.time_ns() // 1_000_000)
    return found


@dataclass
class Guarded:
    """Intake behind its list of merchants: a stranger's way to the topic, the ingress's, and what came of it."""

    strangers: Publisher
    ingress: Commands
    seen: Arrived
    shell: Shell

    async def reason(self, message: Message) -> str:
        """Why these bytes became a dead letter, once they have."""

        def found() -> list[Any]:
            return [letter for letter in self.seen.letters if letter.original == message.value]

        await until(found, "a dead letter")
        return str(found()[-1].reason)

    async def forwarded(self, *commands: dict[str, Any]) -> None:
        ids = [id_of(fields) for fields in commands]
        await until(lambda: self.seen.states(ids)[State.PENDING] == len(ids), "all are forwarded")

    def cancelled(self) -> list[bytes]:
        return [record.key for record in self.seen.records.get(topics.cancel_topic(LANE), [])]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(stack: Stack) -> AsyncIterator[Guarded]:
    kafka = settings_of(stack)
    await create_topics(kafka, topics.declare([LANE], tiers=("1s", "2s")))
    env = environment(stack, {LANE: {"provider": "simulator"}})
    port = free_port()
    guard = {"KAFKA_MERCHANTS": f"{FRIEND},somebody", "COMMAND_SECRET": f"{NEW},{OLD}", "ADMIN_PORT": str(port)}
    watched = OUTPUTS | dict.fromkeys((*topics.queue_topics(LANE), topics.cancel_topic(LANE)), PARTITIONS)
    named = {**env, "KIFIYA_STATE": "/nonexistent/state.json", "INGRESS_URL": ""}
    async with (
        Publisher(kafka) as strangers,
        Commands(Publisher(kafka), SEALS) as ingress,
        watching(kafka, watched) as seen,
        process("streams", "intake", **env, **guard),
    ):
        await until_ready(port)
        await until(lambda: not ingress.away, "the ingress's producer")
        yield Guarded(strangers, ingress, seen, Shell(kafka, named))


async def test_producers_speak_for_whom_the_setting_names_and_the_ingress_for_all(guarded: Guarded) -> None:
    plain, avro = new(FRIEND), new(FRIEND)
    by_http, moved = new(OTHER), new(OTHER)
    home = partition_for(id_of(moved).encode(), COMMAND_PARTITIONS)
    away = stamped(as_json(moved, (home + 1) % COMMAND_PARTITIONS))
    foreign, avro_foreign = as_json(new(OTHER), 5), as_avro(new(OTHER))
    forged = foreign._replace(value=as_json(new(OTHER)).value, headers=stamped(as_avro(by_http)).headers)
    await guarded.strangers.publish([as_json(plain), as_avro(avro), away, foreign, avro_foreign, forged])
    await guarded.ingress.publish(as_avro(by_http), 10.0)
    await guarded.forwarded(plain, avro, by_http, moved)
    for message in (foreign, avro_foreign, forged):
        assert await guarded.reason(message) == "merchant-not-admitted"
    (letter,) = [each for each in guarded.seen.letters if each.original == foreign.value]
    assert (letter.topic, letter.partition, letter.merchant_id) == (topics.COMMANDS, 5, OTHER)
    assert guarded.seen.tasks.keys() == {id_of(each) for each in (plain, avro, by_http, moved)}


async def test_a_stranger_neither_reaches_anothers_payment_nor_learns_of_it(guarded: Guarded) -> None:
    fields = new(OTHER)
    await guarded.ingress.publish(as_avro(fields), 10.0)
    await guarded.forwarded(fields)
    by_id = as_json({"type": "cancel", "payment_id": id_of(fields)})
    of_none = as_json({"type": "cancel", "payment_id": str(uuid.uuid4())})
    by_key = as_json({"type": "cancel", "merchant_id": OTHER, "idempotency_key": fields["idempotency_key"]})
    against = as_json({**fields, "amount": "99.00"})
    await guarded.strangers.publish([by_id, of_none, by_key, against])
    assert await guarded.reason(by_id) == await guarded.reason(of_none) == "unknown-payment"
    assert await guarded.reason(by_key) == await guarded.reason(against) == "merchant-not-admitted"
    known, unknown = (
        replace(each, payment_id=None, original=b"", original_sha256="", partition=0, offset=0, at_ms=0)
        for message in (by_id, of_none)
        for each in guarded.seen.letters
        if each.original == message.value
    )
    assert known == unknown
    assert id_of(fields).encode() not in guarded.cancelled()


async def test_a_record_of_the_ingress_that_is_sent_again_changes_nothing(guarded: Guarded) -> None:
    fields = new(OTHER)
    asked = stamped(as_avro(fields))
    cancel = stamped(as_avro({"type": "cancel", "payment_id": id_of(fields), "merchant_id": OTHER}))
    await guarded.strangers.publish([asked, cancel])
    await until(lambda: id_of(fields).encode() in guarded.cancelled(), "the cancel")
    after = new(FRIEND)
    partition = partition_for(id_of(fields).encode(), COMMAND_PARTITIONS)
    while partition_for(id_of(after).encode(), COMMAND_PARTITIONS) != partition:
        after = new(FRIEND)
    await guarded.strangers.publish([asked, asked, cancel])
    await guarded.strangers.publish([as_avro(after)])
    await guarded.forwarded(after)
    assert len(guarded.seen.tasks[id_of(fields)]) == 1
    assert len(guarded.seen.events[id_of(fields)]) == 1


async def test_a_replay_is_believed_where_the_original_was_and_only_there(guarded: Guarded) -> None:
    fields = new(OTHER)
    conflict, stranger = as_avro({**fields, "amount": "99.00"}), as_json({**fields, "amount": "77.00"})
    await guarded.ingress.publish(as_avro(fields), 10.0)
    await guarded.ingress.publish(conflict, 10.0)
    await guarded.strangers.publish([stranger])
    reasons = {conflict.value: "idempotency-conflict", stranger.value: "merchant-not-admitted"}
    assert [await guarded.reason(message) for message in (conflict, stranger)] == list(reasons.values())

    def told() -> list[Any]:
        return [each for each in guarded.seen.letters if each.original in reasons]

    origins = [f"{each.topic}/{each.partition}/{each.offset}" for each in told()]
    answer = await guarded.shell.kifiya("dead-letters", "replay", *origins, COMMAND_SECRET=f"{NEW},{OLD}")
    assert answer.status == 0, answer.err
    await until(lambda: len(told()) == 4, "the replays' letters")
    assert [each.reason for each in told()] == [reasons[each.original] for each in told()]
    last = [
        dict(record.headers)
        for record in guarded.seen.records[topics.DEAD_LETTER]
        if (conflict.value or b"") in record.value
    ][-1]
    assert Seals([NEW]).sealed_at(conflict.value or b"", last[seal.HEADER]) is not None


async def test_the_command_line_sends_as_a_part_of_the_gateway_or_as_a_stranger(guarded: Guarded) -> None:
    options = ("--merchant", OTHER, "--amount", "1.00", "--currency", "USD", "--payment-method", "pm_approve")
    ours = (await guarded.shell.kifiya("send", *options, "-o", "json", COMMAND_SECRET=OLD)).json
    await until(lambda: guarded.seen.state(ours["payment_id"]) is State.PENDING, "ours")
    sent = (await guarded.shell.kifiya("send", *options, "-o", "json", "--json", COMMAND_SECRET=OLD)).json
    await until(
        lambda: sent["payment_id"] in {each.payment_id for each in guarded.seen.letters}, "the stranger's letter"
    )
    assert sent["payment_id"] not in guarded.seen.tasks
