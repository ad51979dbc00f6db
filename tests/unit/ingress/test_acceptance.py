"""How a create is taken, over every mix of Redis, PostgreSQL and Kafka being there or away."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from typing import Any

import orjson
import pytest

from ingress.acceptance import Answer, decide
from ingress.idempotency import Standing
from ingress.presence import Away
from ops.kafka.clients import PublishError
from schemas import command as commands
from schemas import identity
from schemas.records import PaymentCommand
from tests.unit.ingress.fakes import BODY, ID, KEY, LANES, MemoryPayments, World, row

MINE, OTHERS = "mine", "others"


def create(amount: str = "12.50", **changes: object) -> PaymentCommand:
    return commands.create(
        {**BODY, "amount": amount, **changes}, idempotency_key=KEY, lanes=LANES, accepted_at_ms=1_000
    )


@pytest.mark.parametrize(
    ("standing", "older", "expired", "answer"),
    [
        (Standing.NEW, None, False, Answer.ACCEPTED),
        (None, None, False, Answer.ACCEPTED),
        (Standing.NEW, None, True, Answer.EXPIRED),
        (None, None, True, Answer.EXPIRED),
        (Standing.BUSY, None, False, Answer.BUSY),
        (Standing.BUSY, None, True, Answer.BUSY),
        (Standing.CONFLICT, None, False, Answer.CONFLICT),
        (Standing.CONFLICT, None, True, Answer.CONFLICT),
        (Standing.PUBLISHED, None, False, Answer.REPEATED),
        (Standing.PUBLISHED, None, True, Answer.REPEATED),
        *((standing, MINE, expired, Answer.REPEATED) for standing in [*Standing, None] for expired in (True, False)),
        *((standing, OTHERS, expired, Answer.CONFLICT) for standing in [*Standing, None] for expired in (True, False)),
    ],
)
def test_the_stored_payment_goes_before_what_redis_remembers(
    standing: Standing | None, older: str | None, expired: bool, answer: Answer
) -> None:
    assert decide(standing, older, MINE, expired=expired) is answer


@pytest.mark.parametrize(("redis", "postgres", "kafka"), list(itertools.product((True, False), repeat=3)))
async def test_a_new_create_is_accepted_whatever_store_is_away(redis: bool, postgres: bool, kafka: bool) -> None:
    world = World()
    world.keys.away, world.payments.away = not redis, not postgres
    if not kafka:
        world.kafka_away()
        with pytest.raises(PublishError):
            await world.acceptance().accept(create())
        world.kafka.error = None
    taken = await world.acceptance().accept(create())
    assert taken.answer is Answer.ACCEPTED
    assert orjson.loads(taken.document)["status"] == "PENDING"
    assert [record.payment_id for record in world.kafka.records] == [ID]


@pytest.mark.parametrize(("redis", "postgres", "kafka"), list(itertools.product((True, False), repeat=3)))
@pytest.mark.parametrize("amount", ["12.50", "99.00"])
@pytest.mark.parametrize("stored", [True, False])
async def test_a_repeat_is_told_by_whoever_knows_it(
    redis: bool, postgres: bool, kafka: bool, amount: str, stored: bool
) -> None:
    """With nobody left who knows it, it is published with the same id: the stream tells."""
    world = World()
    await world.acceptance().accept(create())
    if stored:
        world.payments.rows[ID] = row()
    world.keys.away, world.payments.away = not redis, not postgres
    known = redis or (postgres and stored)
    if not kafka:
        world.kafka_away()
        if not known:
            with pytest.raises(PublishError):
                await world.acceptance().accept(create(amount))
            return
    taken = await world.acceptance().accept(create(amount))
    if not known:
        assert taken.answer is Answer.ACCEPTED
        assert {record.payment_id for record in world.kafka.records} == {ID}
        return
    assert len(world.kafka.records) == 1
    if amount != "12.50":
        assert taken.answer is Answer.CONFLICT
        assert taken.document == b""
        return
    assert taken.answer is Answer.REPEATED
    state = "COMPLETED" if postgres and stored else "PENDING"
    assert orjson.loads(taken.document)["status"] == state
    assert taken.document == await world.acceptance().find(ID, "shop")


async def test_parallel_requests_with_one_key_publish_once() -> None:
    world = World()
    world.kafka.gate = asyncio.Event()
    acceptance = world.acceptance()
    asking = [asyncio.create_task(acceptance.accept(create())) for _ in range(200)]
    async with asyncio.timeout(20):
        while sum(task.done() for task in asking) < len(asking) - 1:
            await asyncio.sleep(0)
    [first] = [task for task in asking if not task.done()]
    done = [task for task in asking if task.done()]
    assert {task.result().answer for task in done} == {Answer.BUSY}
    assert {task.result().wait_ms for task in done} == {1500}
    world.kafka.gate.set()
    assert (await first).answer is Answer.ACCEPTED
    assert len(world.kafka.records) == 1
    assert (await acceptance.accept(create())).answer is Answer.REPEATED


async def test_a_failed_publish_frees_the_key_for_its_body_only() -> None:
    """Kafka may have stored it all the same, so another body stays out."""
    world = World()
    world.kafka_away()
    with pytest.raises(PublishError):
        await world.acceptance().accept(create())
    world.kafka.error = None
    assert (await world.acceptance().accept(create("99.00"))).answer is Answer.CONFLICT
    assert (await world.acceptance().accept(create())).answer is Answer.ACCEPTED
    assert [record.amount_minor for record in world.kafka.records] == [1250]


async def test_a_cancelled_request_frees_the_key() -> None:
    world = World()
    world.kafka.gate = asyncio.Event()
    asking = asyncio.create_task(world.acceptance().accept(create()))
    while not world.keys.entries:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    world.kafka.gate.set()
    assert (await world.acceptance().accept(create())).answer is Answer.ACCEPTED


@pytest.mark.parametrize("ends", ["answered", "failed", "late"])
async def test_a_request_that_is_cancelled_while_it_looks_up_its_key_leaves_nothing_behind(ends: str) -> None:
    """Neither a claim, nor PostgreSQL's answer that nobody takes."""

    class Held(MemoryPayments):
        def find(self, payment_id: str, merchant_id: str) -> Any:
            del payment_id, merchant_id
            return held[0]

    said: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: said.append(context))
    world, held = World(), [loop.create_future()]
    world.payments = Held()
    asking = asyncio.create_task(world.acceptance().accept(create()))
    while not world.keys.entries:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    if ends == "answered":
        held[0].set_result(None)
    elif ends == "failed":
        held[0].set_exception(Away("postgres is away"))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert held.pop().cancelled() == (ends == "late")
    world.payments = MemoryPayments()
    gc.collect()
    loop.set_exception_handler(None)
    assert not said
    assert (await world.acceptance().accept(create())).answer is Answer.ACCEPTED


async def test_a_late_loser_does_not_free_anothers_claim() -> None:
    world = World()
    world.kafka.gate = asyncio.Event()
    world.kafka_away()
    late = asyncio.create_task(world.acceptance().accept(create()))
    while not world.keys.entries:
        await asyncio.sleep(0)
    world.keys.entries[ID]["lease"] = 77  # its lease ran out, and another request claimed the key
    world.kafka.gate.set()
    with pytest.raises(PublishError):
        await late
    assert world.keys.entries[ID]["lease"] == 77


async def test_a_key_that_redis_forgot_is_remembered_again_from_the_store() -> None:
    world = World()
    world.payments.rows[ID] = row()
    assert (await world.acceptance().accept(create("99.00"))).answer is Answer.CONFLICT
    world.payments.away = True
    assert (await world.acceptance().accept(create("99.00"))).answer is Answer.CONFLICT
    taken = await world.acceptance().accept(create())
    assert taken.answer is Answer.REPEATED
    assert orjson.loads(taken.document)["status"] == "COMPLETED"
    assert world.kafka.records == []


async def test_the_same_words_typed_another_way_are_a_repeat_told_in_one_form() -> None:
    world = World()
    assert (await world.acceptance().accept(create(description="Cafe\u0301"))).answer is Answer.ACCEPTED
    taken = await world.acceptance().accept(create(description="Caf\u00e9"))
    assert taken.answer is Answer.REPEATED
    assert orjson.loads(taken.document)["description"] == "Caf\u00e9"


async def test_a_payment_stored_before_texts_were_normalised_is_still_known() -> None:
    world = World()
    as_sent = identity.fingerprint(
        amount_minor=1250, currency="USD", payment_method="pm_approve", customer_id=None, description="Cafe\u0301",
        metadata={}, lane=None, expires_at_ms=None,
    )  # fmt: skip
    world.payments.rows[ID] = row(fingerprint=as_sent, description="Cafe\u0301")
    assert (await world.acceptance().accept(create(description="Cafe\u0301"))).answer is Answer.REPEATED
    assert (await world.acceptance().accept(create(description="Cafes"))).answer is Answer.CONFLICT


async def test_an_expired_create_is_refused_and_its_key_stays_free() -> None:
    world = World()
    late = create(expires_at="1970-01-01T00:00:01Z")
    assert (await world.acceptance().accept(late)).answer is Answer.EXPIRED
    assert world.kafka.records == []
    assert (await world.acceptance().accept(create())).answer is Answer.ACCEPTED


async def test_the_repeat_of_a_payment_that_expired_meanwhile_is_a_repeat() -> None:
    world = World()
    first = create(expires_at="1970-01-01T00:00:02Z")
    assert (await world.acceptance().accept(first)).answer is Answer.ACCEPTED
    again = commands.create(
        {**BODY, "expires_at": "1970-01-01T00:00:02Z"}, idempotency_key=KEY, lanes=LANES, accepted_at_ms=9_000
    )
    assert (await world.acceptance().accept(again)).answer is Answer.REPEATED


@pytest.mark.parametrize(
    ("redis", "postgres", "known_to", "found"),
    [
        (True, True, "both", "COMPLETED"),
        (True, True, "redis", "PENDING"),
        (True, True, "postgres", "COMPLETED"),
        (True, True, "nobody", None),
        (True, False, "both", "PENDING"),
        (True, False, "redis", "PENDING"),
        (True, False, "nobody", "away"),
        (False, True, "both", "COMPLETED"),
        (False, True, "redis", "away"),
        (False, True, "nobody", "away"),
        (False, False, "both", "away"),
    ],
)
async def test_a_payment_is_found_where_it_is_known_and_denied_only_by_both(
    redis: bool, postgres: bool, known_to: str, found: str | None
) -> None:
    """A 404 for a payment that was accepted would make its merchant pay again under a new key."""
    world = World()
    if known_to in {"both", "redis"}:
        await world.acceptance().accept(create())
    if known_to in {"both", "postgres"}:
        world.payments.rows[ID] = row()
    world.keys.away, world.payments.away = not redis, not postgres
    if found == "away":
        with pytest.raises(Away):
            await world.acceptance().find(ID, "shop")
        return
    document = await world.acceptance().find(ID, "shop")
    assert (orjson.loads(document)["status"] if document else None) == found


async def test_a_payment_that_is_being_published_is_not_shown_yet() -> None:
    world = World()
    world.kafka.gate = asyncio.Event()
    asking = asyncio.create_task(world.acceptance().accept(create()))
    while not world.keys.entries:
        await asyncio.sleep(0)
    assert await world.acceptance().find(ID, "shop") is None
    world.kafka.gate.set()
    await asking
    assert await world.acceptance().find(ID, "shop") is not None


async def test_slow_stores_shorten_the_wait_for_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    granted: list[float] = []
    began = time.monotonic()

    async def publish(_: object, timeout_s: float) -> None:
        granted.append(timeout_s + time.monotonic() - began)

    async def slow(*_: object) -> None:
        await asyncio.sleep(0.3)
        raise Away("redis")

    monkeypatch.setattr(world.keys, "claim", slow)
    monkeypatch.setattr(world.kafka, "publish", publish)
    await world.acceptance().accept(create())
    assert 1.2 < granted[0] <= 1.45
    began = time.monotonic()
    await world.acceptance().accept(create(), began - 0.5)  # it stood in line
    assert 0.7 < granted[1] <= 0.95


async def test_a_create_that_is_cut_off_after_its_claim_holds_nobody_up() -> None:
    """As at a stop, while PostgreSQL is asked: the same request again, elsewhere, is not told to wait."""
    world = World()
    asked = asyncio.Event()

    async def hang(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    acceptance = world.acceptance()
    world.payments.find = hang  # type: ignore[method-assign, assignment]
    taking = asyncio.create_task(acceptance.accept(create()))
    await asked.wait()
    while ID not in world.keys.entries:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert world.keys.entries[ID]["lease"] == 0
    del world.payments.find
    assert (await world.acceptance().accept(create())).answer is Answer.ACCEPTED
