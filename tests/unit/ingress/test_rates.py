"""Rate limits: how many come through, when the next one may, and what processes know of one another."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from ingress import rates
from ingress.problem import Problem
from ingress.rates import Allowance, Rates
from ingress.tenants import Caller
from schemas.api_key import Mode
from tests.unit.ingress.fakes import BODY, MemoryShared, World, key_of, post, problem

START = 1_769_860_800.0


@dataclass
class Clock:
    at: float = START

    def __call__(self) -> float:
        return self.at


@dataclass
class Process:
    """One ingress's counts, as it takes requests of one merchant."""

    shared: MemoryShared
    clock: Clock
    default: str = "10/second"
    rates: Rates = field(init=False)

    def __post_init__(self) -> None:
        self.rates = Rates(self.shared, self.default, clock=self.clock)

    def taken(self, count: int, merchant: str = "shop", limit: str | None = None) -> int:
        """How many of so many requests come through."""
        return sum(self.one(merchant, limit) is None for _ in range(count))

    def one(self, merchant: str = "shop", limit: str | None = None) -> Problem | None:
        try:
            self.rates.take(Caller(merchant, Mode.TEST, frozenset(), "0" * 16, rate_limit=limit))
        except Problem as error:
            return error
        return None


def process(default: str = "10/second") -> Process:
    return Process(MemoryShared(), Clock(), default)


@pytest.mark.parametrize(
    ("moments", "through"),
    [
        ([(0.0, 15)], [10]),
        ([(0.9, 10), (1.0, 5)], [10, 0]),  # a full window before weighs whole at first
        ([(0.9, 10), (1.5, 9)], [10, 5]),
        ([(0.9, 4), (1.5, 20)], [4, 8]),
        ([(0.0, 10), (2.0, 15)], [10, 10]),
        ([(0.0, 10), (0.5, 3), (1.0, 1), (1.2, 3)], [10, 0, 0, 2]),
        ([(5.0, 10), (4.0, 15)], [10, 10]),  # the clock was set back: no one is shut out for it
    ],
)
async def test_a_window_slides(moments: list[tuple[float, int]], through: list[int]) -> None:
    one = process()
    found = []
    for at, count in moments:
        one.clock.at = START + at
        found.append(one.taken(count))
    assert found == through


async def test_nobody_waits_longer_or_shorter_than_told() -> None:
    """Whatever came before: a moment earlier than told one is refused, then it is not; refusals cost nothing."""
    chance = random.Random(7)
    for _ in range(300):
        found = Allowance(f"{chance.randint(1, 20)}/{chance.choice(['second', 'minute'])}")
        at = START + chance.random()
        while found.take(at) >= 0:
            at += chance.random() * found.seconds / 30
        wait_s = found.wait_s(at)
        assert wait_s <= 2 * found.seconds
        if wait_s > 0.001:
            assert found.take(at + wait_s - 0.0005) < 0
        assert found.take(at + wait_s + 0.0005) >= 0


async def test_no_window_lets_more_than_its_limit_through() -> None:
    one, chance = process("50/second"), random.Random(3)
    through: Counter[int] = Counter()
    for _ in range(5000):
        one.clock.at += chance.expovariate(200)
        through[int(one.clock.at)] += one.one() is None
    assert max(through.values()) <= 50
    assert sum(through.values()) > 0.9 * 50 * (len(through) - 2)


async def test_processes_know_of_each_other_after_a_moment() -> None:
    clock, shared = Clock(), MemoryShared()
    one, two = Process(shared, clock), Process(shared, clock)
    assert (one.taken(6), two.taken(1)) == (6, 1)
    for each in (one, two, one):
        each.one()  # whoever was asked hears what the others allowed
        await each.rates.sync()
    assert shared.counts == {("shop", 1, int(START)): 10}
    assert (one.taken(5), two.taken(5)) == (0, 1)  # two has not heard of one's last
    clock.at += 1.5
    assert one.taken(20) == 5
    await one.rates.sync()
    assert shared.counts["shop", 1, int(START) + 1] == 5


async def test_a_process_that_comes_new_hears_of_the_window_before() -> None:
    clock, shared = Clock(START + 0.9), MemoryShared()
    one, two = Process(shared, clock), Process(shared, clock)
    assert one.taken(10) == 10
    clock.at = START + 1.25
    assert (one.one() is None, two.one() is None) == (True, True)
    await one.rates.sync()
    await two.rates.sync()
    assert shared.counts == {("shop", 1, int(START)): 10, ("shop", 1, int(START) + 1): 2}
    assert two.taken(5) == 0  # ten weigh 7.5 now, and two came since


async def test_without_redis_each_keeps_to_the_limit_and_tells_it_later() -> None:
    clock, shared = Clock(), MemoryShared(away=True)
    one = Process(shared, clock)
    assert one.taken(7) == 7
    await one.rates.sync()
    assert one.taken(7) == 3
    shared.away = False
    await one.rates.sync()
    assert shared.counts == {("shop", 1, int(START)): 10}


async def test_what_comes_while_the_others_are_told_counts_too() -> None:
    one = process()
    assert one.taken(4) == 4
    telling = asyncio.create_task(one.rates.sync())
    while not one.rates._of["shop"].now.sending:
        await asyncio.sleep(0)
    assert one.taken(20) == 6
    await telling
    await one.rates.sync()
    assert one.shared.counts == {("shop", 1, int(START)): 10}
    assert one.taken(1) == 0


async def test_the_others_are_told_without_being_asked_to_and_an_idle_process_tells_nothing() -> None:
    one = process()
    one.taken(3)
    async with asyncio.timeout(5):
        while not one.shared.counts:
            await asyncio.sleep(0.01)
        while one.rates._syncing is not None:
            await asyncio.sleep(0.01)
    one.taken(1)
    await one.rates.close()
    assert one.rates._syncing is None


async def test_a_merchants_own_limit_goes_before_the_default_and_changes_at_once() -> None:
    one = process()
    assert one.taken(9, "big", "20/minute") == 9
    assert one.taken(30, "small", "2/second") == 2
    assert one.taken(30, "big", "5/minute") == 5
    assert one.taken(30, "broken", "fast") == 10  # written by hand: the default holds, and the log names it
    assert one.taken(30) == 10


async def test_merchants_of_the_past_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST", 10)
    one = process()
    for number in range(50):
        one.one(f"m-{number}")
    one.clock.at += 5
    one.one("now")
    await one.rates.sync()
    assert list(one.rates._of) == ["now"]


async def test_over_the_limit_is_429_and_says_when_to_come_again() -> None:
    world = World(rate_limit="3/minute")
    other = world.keyring.add(*key_of("other"))
    async with world.client() as client:
        for left in (2, 1, 0):
            answer = await post(client, f"order-{left}")
            assert answer.status_code == 201
            assert answer.headers["ratelimit-policy"] == '"merchant";q=3;w=60'
            assert answer.headers["ratelimit"].startswith(f'"merchant";r={left};t=')
        answer = await post(client, "order-3")
        problem(answer, 429, "rate-limited")
        wait_s = int(answer.headers["retry-after"])
        assert 1 <= wait_s <= 120
        assert answer.headers["ratelimit"] == f'"merchant";r=0;t={wait_s}'
        problem(await client.get("/v1/payments"), 429, "rate-limited")
        assert (await client.get("/v1/payments", headers=other)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
    assert len(world.kafka.records) == 3


async def test_each_line_of_a_batch_counts() -> None:
    world = World(rate_limit="5/minute")
    lines = [json.dumps({**BODY, "idempotency_key": f"k{number}"}) for number in range(8)]
    async with world.client() as client:
        kind = {"Content-Type": "application/x-ndjson"}
        answer = await client.post("/v1/payments/batch", content="\n".join(lines), headers=kind)
    said = [json.loads(each) for each in answer.text.splitlines()]
    assert [each["status"] for each in said] == [201] * 5 + [429] * 3
    assert all(each["retry_after_s"] >= 1 and each["problem"]["code"] == "rate-limited" for each in said[5:])
    assert len(world.kafka.records) == 5
