"""What a merchant has waiting, which level that leads to, and that everybody is done in about their fair time."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.kafka.clients import partition_for
from schemas import identity, topics
from schemas.levels import level
from streams import share
from streams.queues import Queue, Rota, in_hand
from streams.share import LIMITS, Rounds, Share, parse_weights

PARTITIONS = 8
TAKES = 3
"""How many turns later one more of a partition's tasks is there: a call takes so long."""


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [(0.0, 0), (15.9, 0), (16.0, 1), (127.9, 1), (128.0, 2), (1023.9, 2), (1024.0, 3), (1e9, 3)],
)
def test_the_more_waits_the_lower_the_level(waiting: float, expected: int) -> None:
    assert level(waiting, tuple(map(float, LIMITS))) == expected


def test_each_limit_is_that_of_a_level_but_the_last() -> None:
    assert len(LIMITS) == len(topics.LEVELS) - 1


def served(
    sent: list[tuple[str, int]], workers: int = 1, takes: int = TAKES, most: int = 1, partitions: int = PARTITIONS
) -> dict[str, int]:
    """On which call the last payment of each small merchant is, where all is sent before the first call.

    ``most`` tasks of a queue's partition are in hand at once.
    """
    shares = [Share(("a",)) for _ in range(workers)]
    for each in shares:
        each.owns(1 / workers)
    lines: dict[tuple[Queue, int], deque[str]] = {}
    for merchant, count in sent:
        for number in range(count):
            key = identity.payment_id(merchant, str(number)).encode()
            where = shares[partition_for(key, 12) % workers].place("a", merchant)
            queue = Queue(where, topics.queue_number(where, merchant))
            lines.setdefault((queue, partition_for(key, partitions)), deque()).append(merchant)
    rota, last, call = Rota(), dict[str, int](), 0
    waiting: dict[Queue, deque[int]] = {}
    for queue, partition in sorted(lines):
        for _ in range(min(most, len(lines[queue, partition]))):
            waiting.setdefault(queue, deque()).append(partition)
    away: deque[tuple[int, Queue, int]] = deque()
    left = sum(count for merchant, count in sent if merchant.startswith("small"))
    while left:
        call += 1
        while away and (away[0][0] <= call or not any(waiting.values())):
            _, queue, partition = away.popleft()
            waiting[queue].append(partition)
        queue = rota.choose([queue for queue, line in waiting.items() if line])
        partition = waiting[queue].popleft()
        line = lines[queue, partition]
        merchant = line.popleft()
        last[merchant] = call
        left -= merchant.startswith("small")
        if len(line) >= most:
            away.append((call + takes, queue, partition))
    return last


def fair(sent: list[tuple[str, int]], merchant: str) -> int:
    """On which call its last payment is at the latest where the merchants share all calls equally."""
    count = dict(sent)[merchant]
    return sum(min(count, each) for _, each in sent)


SMALL = [(f"small-{number}", 10) for number in range(5)]


@pytest.mark.parametrize(
    ("sent", "workers", "times"),
    [
        ([("heavy", 60_000), *SMALL], 1, 2.0),
        ([("heavy", 6000), *SMALL], 3, 2.0),
        ([("heavy", 6000), ("small", 1)], 1, 20.0),
        ([("heavy", 6000), ("small", 50)], 1, 2.5),
        ([("heavy", 6000), ("small", 500)], 1, 2.5),
        ([("heavy", 12_000), ("small", 5000)], 1, 2.5),
        ([*((f"heavy-{number}", 500) for number in range(10)), ("small", 10)], 1, 2.5),
    ],
    ids=["the aim", "three workers", "one", "fifty", "hundreds", "thousands", "ten heavy ones"],
)
def test_who_sends_little_is_done_within_about_its_fair_time_whatever_was_queued_before(
    sent: list[tuple[str, int]], workers: int, times: float
) -> None:
    """``times`` the fair time; one payment behind sixteen of the first level waits for those."""
    found = served(sent, workers)
    late = {name: call / fair(sent, name) for name, call in found.items() if name.startswith("small")}
    assert max(late.values()) <= times, late


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1, 2])
@pytest.mark.parametrize("limit", [2, 4, 20, 50])
@pytest.mark.parametrize("partitions", [8, 16])
def test_they_are_where_calls_take_long_too_however_their_keys_fall_for_a_lane_has_more_in_hand_than_it_calls_meanwhile(
    limit: int, seconds: float, partitions: int
) -> None:
    """From the turn to the acks of what came of it a call takes so many seconds."""
    most, takes = in_hand(limit, 1000, partitions), max(1, round(seconds * limit))
    for fall in range(12):
        sent = [(f"heavy-{fall}", 1200), *((f"small-{fall}-{number}", 10) for number in range(5))]
        found = served(sent, takes=takes, most=most, partitions=partitions)
        late = max(call for name, call in found.items() if name.startswith("small"))
        assert late <= 2 * fair(sent, f"small-{fall}-0")


def test_what_the_lane_has_done_is_each_merchants_in_equal_parts() -> None:
    rounds = Rounds()
    for merchant, count in (("a", 10), ("b", 4), ("c", 1)):
        for _ in range(count):
            rounds.send(merchant, 1.0)
    rounds.serve(3)
    assert len(rounds) == 2
    rounds.serve(6)
    assert len(rounds) == 1
    assert rounds.send("a", 1.0) == pytest.approx(6.0)
    assert rounds.send("c", 1.0) == 0.0


def test_weights_are_parts_of_what_is_done() -> None:
    rounds = Rounds()
    found = [rounds.send("heavy", 4.0) for _ in range(8)]
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    for _ in range(2):
        rounds.send("other", 1.0)
    rounds.serve(5)
    assert (rounds.send("heavy", 4.0), rounds.send("other", 1.0)) == (1.0, 1.0)


@given(st.lists(st.one_of(st.sampled_from("abcde"), st.integers(1, 9)), max_size=80))
def test_nothing_is_lost_between_what_is_sent_and_what_is_done(steps: list[str | int]) -> None:
    """What waits is what was sent less what was done, whoever sent it; and the books are empty when it is over."""
    rounds, waits = Rounds(), 0.0
    weights = dict(zip("abcde", (1.0, 1.0, 2.0, 0.5, 4.0), strict=True))
    for step in steps:
        if isinstance(step, str):
            rounds.send(step, weights[step])
            waits += 1
        else:
            rounds.serve(step)
            waits = max(0.0, waits - step)
        found = sum((rounds._finish[name] - rounds._now) * weights[name] for name in rounds._finish)
        assert found == pytest.approx(waits, abs=1e-6)
    rounds.serve(1e9)
    assert (len(rounds), rounds.send("a", 1.0)) == (0, 0.0)


def test_an_outage_forgives_nobody_and_an_idle_lane_everybody() -> None:
    ours = Share(("a", "b"))
    found = Counter(ours.place("a", "shop") for _ in range(20))
    assert found == {0: 16, 1: 4}
    ours.done("a", 0, idle=False)
    ours.done("b", 500, idle=True)
    assert ours.place("a", "shop") == 1
    assert (ours.place("a", "other"), ours.place("b", "shop"), ours.place("gone", "shop")) == (0, 0, 0)
    ours.done("a", 0, idle=True)
    assert ours.place("a", "shop") == 1, "it may not have been stored yet when none was seen"
    for _ in range(2):
        ours.done("a", 0, idle=True)
    assert (ours.waiting("a"), ours.place("a", "shop")) == (0, 0)


def test_who_sends_no_more_than_its_share_stays_in_the_first_level_for_ever_and_who_sends_more_does_not() -> None:
    """Two send as much as the lane can do, and so more than it can: who asks for more than half is behind."""
    ours, found = Share(("a",)), {"much": Counter[int](), "little": Counter[int]()}
    for _ in range(2000):
        for merchant, count in (("much", 10), ("little", 4)):
            found[merchant].update(ours.place("a", merchant) for _ in range(count))
        ours.done("a", 10, idle=False)
    assert found["little"].keys() == {0}
    assert found["much"][0] < 200


def test_a_process_of_many_counts_for_its_part() -> None:
    ours = Share(("a",))
    ours.owns(0.25)
    found = Counter(ours.place("a", "shop") for _ in range(300))
    assert found == {0: 6, 1: 28, 2: 224, 3: 42}
    ours.done("a", 4 * 297, idle=False)
    assert ours.place("a", "shop") == 0


def test_so_many_merchants_are_remembered_and_the_one_with_least_waiting_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(share, "MOST", 3)
    rounds = Rounds()
    for merchant in "aaabccd":
        rounds.send(merchant, 1.0)
    assert len(rounds) == 3
    assert (rounds.send("a", 1.0), rounds.send("c", 1.0)) == (3.0, 2.0)
    for number in range(100):
        rounds.send(f"m{number}", 1.0)
    assert len(rounds) == 3
    assert rounds.send("a", 1.0) == 4.0
    assert [rounds.send("new", 1.0) for _ in range(3)] == [0.0, 1.0, 2.0], "it counts though the others have more"


def test_memory_does_not_grow_with_the_backlog() -> None:
    rounds = Rounds()
    for number in range(5000):
        rounds.send(f"m{number % 7}", 1.0)
        rounds.serve(0.1)
    assert len(rounds._first) == len(rounds) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{}", {}), ('{"a": 2, "b": 0.5}', {"a": 2.0, "b": 0.5}), ('{"a": 0.001, "b": 1000}', {"a": 0.001, "b": 1000.0})],
)
def test_weights_are_numbers_by_merchant(text: str, expected: dict[str, float]) -> None:
    assert parse_weights(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"), ("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("[]", "JSON object"),
        ('{"a": 1, "a": 2}', "twice"), ('{"": 1}', "''"), ('{"a": "2"}', "'a': a weight is a number"),
        ('{"a": true}', "a number"), ('{"a": null}', "a number"), ('{"a": 0}', "from 0.001 to 1000"),
        ('{"a": -1}', "from"), ('{"a": NaN}', "from"), ('{"a": Infinity}', "from"),
        ('{"a": 1' + "0" * 400 + "}", "from"),
    ],
)  # fmt: skip
def test_other_weights_are_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="MERCHANT_WEIGHTS") as refused:
        parse_weights(text)
    assert said in str(refused.value)


def test_those_with_most_waiting_are_told_as_of_all_processes() -> None:
    share = Share(["a", "b"], {"heavy": 2.0})
    share.owns(0.5)
    for _ in range(30):
        share.place("a", "big")
        share.place("a", "heavy")
    share.place("a", "small")
    assert share.ahead() == {"a": {"big": 60.0, "heavy": 30.0, "small": 2.0}, "b": {}}
    share.done("a", 4, idle=False)
    assert share.ahead()["a"]["big"] < 60
    share.done("a", 100, idle=True)
    assert share.ahead() == {"a": {}, "b": {}}
