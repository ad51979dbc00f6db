"""The turnstile: one at a time, due ones first within bounds, and a cancelled waiter costs nobody a turn."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.queues import DUE, DUE_IN_A_ROW, FIRST, Queue
from streams.throttle import Turnstile


class Line:
    """Waiters at one turnstile, and the order in which they had their turn."""

    def __init__(self) -> None:
        self.turnstile = Turnstile()
        self.order: list[str] = []
        self.at_once = 0
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _pass(self, name: str, queue: Queue, partition: int) -> None:
        async with self.turnstile.turn(queue, partition):
            self.at_once += 1
            assert self.at_once == 1
            self.order.append(name)
            await asyncio.sleep(0)
            self.at_once -= 1

    async def join(self, name: str, queue: Queue, partition: int = 0) -> None:
        self.tasks[name] = asyncio.create_task(self._pass(name, queue, partition))
        await asyncio.sleep(0)

    async def all_through(self) -> None:
        await asyncio.wait_for(asyncio.gather(*self.tasks.values(), return_exceptions=True), 5)


@pytest.mark.parametrize(
    ("waiting", "order"),
    [
        ("fff", "fff"),
        ("ffdd", "ddff"),
        ("fdddd", "dddfd"),
        ("ffdddddddd", "dddfdddfdd"),
        ("dddd", "dddd"),
    ],
)
async def test_due_ones_go_first_but_at_most_three_in_a_row(waiting: str, order: str) -> None:
    line = Line()
    async with line.turnstile.turn(FIRST):
        for number, kind in enumerate(waiting):
            await line.join(f"{kind}{number}", DUE if kind == "d" else FIRST)
    await line.all_through()
    assert "".join(name[0] for name in line.order) == order
    for kind in "df":
        numbers = [int(name[1:]) for name in line.order if name[0] == kind]
        assert numbers == sorted(numbers)


async def test_a_cancelled_waiter_frees_its_place() -> None:
    line = Line()
    async with line.turnstile.turn(FIRST):
        for name in ("a", "b", "c"):
            await line.join(name, FIRST)
        line.tasks["a"].cancel()
        line.tasks["b"].cancel()
    await line.all_through()
    assert line.order == ["c"]


async def test_a_waiter_that_is_cancelled_with_the_turn_in_its_hand_passes_it_on() -> None:
    line = Line()
    async with line.turnstile.turn(FIRST):
        await line.join("a", FIRST)
        await line.join("b", FIRST)
    line.tasks["a"].cancel()  # its turn was given just now, and not taken yet
    await line.all_through()
    assert line.order == ["b"]


async def test_an_error_inside_passes_the_turn_on() -> None:
    turnstile = Turnstile()
    with pytest.raises(KeyError):
        async with turnstile.turn(DUE):
            raise KeyError
    async with asyncio.timeout(20), turnstile.turn(FIRST):
        pass


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_nobody_is_forgotten_and_due_ones_never_run_more_than_three_in_a_row(waiters: list[tuple[bool, bool]]) -> None:
    async def run() -> None:
        line = Line()
        async with line.turnstile.turn(FIRST):
            for number, (due, _) in enumerate(waiters):
                await line.join(f"{'d' if due else 'f'}{number}", DUE if due else FIRST)
            for number, (due, cancelled) in enumerate(waiters):
                if cancelled:
                    line.tasks[f"{'d' if due else 'f'}{number}"].cancel()
        await line.all_through()
        assert len(line.order) == sum(not cancelled for _, cancelled in waiters)
        kinds = "".join(name[0] for name in line.order)
        assert "d" * (DUE_IN_A_ROW + 1) not in kinds[: kinds.rfind("f") + 1]
        async with asyncio.timeout(20), line.turnstile.turn(FIRST):
            pass

    asyncio.run(run())


async def test_each_level_has_its_share_of_the_turns_and_within_a_queue_the_first_is_first() -> None:
    line = Line()
    async with line.turnstile.turn(FIRST):
        for number in range(8):
            for level in (3, 2, 1, 0):
                await line.join(f"{level}{number}", Queue(level))
    await line.all_through()
    assert "".join(name[0] for name in line.order) == "12300001000011121112223222333333"
    for first in "0123":
        assert [name for name in line.order if name[0] == first] == [f"{first}{number}" for number in range(8)]


async def test_partitions_of_a_queue_take_turns_however_many_each_has_in_hand() -> None:
    line = Line()
    async with line.turnstile.turn(FIRST):
        for name in ("a0", "a1", "a2", "b0", "c0", "c1"):
            await line.join(name, FIRST, "abc".index(name[0]))
        line.tasks["b0"].cancel()
        await line.join("b1", FIRST, 1)
    await line.all_through()
    assert line.order == ["a0", "b1", "c0", "a1", "c1", "a2"]


async def test_who_comes_again_goes_before_all_in_the_order_of_coming_and_takes_nobodys_turn() -> None:
    line = Line()

    async def again(name: str) -> None:
        async with line.turnstile.again():
            line.order.append(name)

    async with line.turnstile.turn(FIRST):
        for number in range(3):
            await line.join(f"a{number}", FIRST)
            await line.join(f"b{number}", Queue(1))
        for name in ("x", "y", "z"):
            line.tasks[name] = asyncio.create_task(again(name))
            await asyncio.sleep(0)
        line.tasks["y"].cancel()
    await line.all_through()
    assert line.order == ["x", "z", "b0", "a0", "a1", "a2", "b1", "b2"]
    async with asyncio.timeout(20), line.turnstile.again():
        await line.join("c", FIRST)
        assert "c" not in line.order
    await line.all_through()
    assert line.order[-1] == "c"
