"""A command is durable in Kafka or in the outbox, and never overtakes an older one of its payment."""

from __future__ import annotations

import pytest

from ingress.acceptance import Answer
from ingress.delivery import Delivery, NotDelivered
from ingress.relay import Row, first_of_each
from ops.kafka.clients import Message, RecordRefused
from schemas import codec, topics
from schemas import command as commands
from schemas.records import CommandType, PaymentCommand
from tests.unit.ingress.fakes import BODY, ID, KEY, LANES, MemoryKafka, MemoryOutbox, World, post, problem

CREATE = commands.create(BODY, idempotency_key=KEY, lanes=LANES, accepted_at_ms=1_000)
CANCEL = PaymentCommand(type=CommandType.CANCEL, payment_id=ID, merchant_id="shop", accepted_at_ms=2_000)


def message(command: PaymentCommand) -> Message:
    return Message(topics.COMMANDS, ID.encode(), codec.encode(command))


@pytest.mark.parametrize("kafka", [True, False])
@pytest.mark.parametrize("outbox", [True, False])
async def test_a_create_goes_to_kafka_or_else_to_the_outbox(kafka: bool, outbox: bool) -> None:
    world = World(outbox=MemoryOutbox(away=not outbox))
    if not kafka:
        world.kafka_away()
    delivery = Delivery(world.kafka.publish, world.outbox)
    if not (kafka or outbox):
        with pytest.raises(NotDelivered):
            await delivery.create(message(CREATE), 1.0)
        return
    await delivery.create(message(CREATE), 1.0)
    assert (len(world.kafka.records), len(world.outbox.rows)) == ((1, 0) if kafka else (0, 1))


async def test_a_full_outbox_takes_nothing() -> None:
    world = World(outbox=MemoryOutbox(full=True))
    world.kafka_away()
    with pytest.raises(NotDelivered):
        await Delivery(world.kafka.publish, world.outbox).create(message(CREATE), 1.0)


async def test_what_kafka_refuses_for_good_does_not_wait_for_it() -> None:
    kafka, outbox = MemoryKafka(error=RecordRefused(0, ValueError("too large"))), MemoryOutbox()
    with pytest.raises(RecordRefused):
        await Delivery(kafka.publish, outbox).create(message(CREATE), 1.0)
    assert outbox.rows == []


async def test_a_cancel_stands_behind_its_create_though_kafka_is_back() -> None:
    world = World(outbox=MemoryOutbox())
    delivery = Delivery(world.kafka.publish, world.outbox)
    world.kafka_away()
    await delivery.create(message(CREATE), 1.0)
    world.kafka.error = None
    await delivery.follow(message(CANCEL), 1.0)
    assert [codec.decode(row.value, PaymentCommand).type for row in world.outbox.rows] == ["create", "cancel"]
    assert world.kafka.records == []
    world.outbox.rows.clear()  # the relay was here
    await delivery.follow(message(CANCEL), 1.0)
    assert [record.type for record in world.kafka.records] == ["cancel"]


async def test_a_cancel_is_not_taken_where_nobody_knows_what_is_before_it() -> None:
    kafka, outbox = MemoryKafka(), MemoryOutbox(away=True)
    with pytest.raises(NotDelivered):
        await Delivery(kafka.publish, outbox).follow(message(CANCEL), 1.0)
    assert kafka.records == []


@pytest.mark.parametrize(
    ("line", "batch"),
    [("", ""), ("a", "a"), ("abc", "abc"), ("abac", "ab"), ("aa", "a"), ("abcb", "abc")],
)
def test_a_batch_of_the_relay_holds_one_command_of_a_payment(line: str, batch: str) -> None:
    rows = [Row(place, name, Message("t", name.encode(), b"")) for place, name in enumerate(line)]
    assert first_of_each(rows) == rows[: len(batch)]


async def test_without_kafka_a_payment_is_accepted_told_apart_and_found() -> None:
    world = World(outbox=MemoryOutbox())
    world.kafka_away()
    async with world.client() as client:
        created = await post(client)
        assert created.status_code == 201
        for redis in (True, False):
            world.keys.away = not redis
            assert (await client.get(f"/v1/payments/{ID}")).content == created.content
            again = await post(client)
            assert (again.status_code, again.content) == (409, created.content)
            problem(await post(client, amount="99.00"), 422, "idempotency-key-reused", "Idempotency-Key")
        cancelled = await client.post(f"/v1/payments/{ID}/cancel")
        assert cancelled.status_code == 202, cancelled.text
    assert len(world.outbox.rows) == 2
    assert world.kafka.records == []


async def test_where_nothing_waits_the_outbox_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(outbox=MemoryOutbox())
    monkeypatch.delattr(MemoryOutbox, "find")
    acceptance = world.acceptance()
    acceptance._may_wait = lambda: False
    assert (await acceptance.accept(CREATE)).answer is Answer.ACCEPTED
    assert await acceptance.find("7e0cf0a9-5c43-4a52-9a3c-0d2b1d5a31b1", "shop") is None
