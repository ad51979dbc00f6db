"""One run of a case: rig, load and faults at once, everything healed, all waited for, collected, judged."""

from __future__ import annotations

import asyncio
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
from aiokafka import TopicPartition

from ops import letters
from ops.chaos import asked, checker, collect, history
from ops.chaos.case import Case
from ops.chaos.checker import Violation
from ops.chaos.clients import over_http
from ops.chaos.evidence import Answer, Evidence
from ops.chaos.injector import Injector
from ops.chaos.matrix import Matrix
from ops.chaos.points import POINTS, Point
from ops.chaos.producers import in_transactions, over_kafka
from ops.chaos.rig import Rig, producers, rigged
from ops.kafka.clients import Publisher, end_offsets
from ops.kafka.reading import partition_counts
from ops.replay import Audit, replayed
from ops.verify import projection
from schemas import topics
from schemas.records import FINAL, State

GRACE_S: Final = 60.0
"""How long after the last heal all is to be over, besides what the limit asks for."""
LATEST_S: Final = 60.0
"""How much longer is waited before it is judged that something stands still."""
QUIET_S: Final = 2.0
LOOK_S: Final = 0.5
PARITY_S: Final = 60.0

_ENDED: Final = [state.value for state in (*FINAL, State.REVIEW)]
_WAITING: Final = "SELECT EXISTS (SELECT FROM outbox) OR EXISTS (SELECT FROM payments WHERE state <> ALL ($1))"
_UNKNOWN: Final = """SELECT count(*) FROM unnest($1::uuid[]) AS wanted (payment_id)
    WHERE NOT EXISTS (SELECT FROM payments WHERE payments.payment_id = wanted.payment_id)"""

Say = Callable[[str], None]


Outcome = tuple[Evidence, list[Violation]]


async def run(case: Case, folder: Path, say: Say) -> Outcome:
    """Run the case; its evidence and what it breaks. All that it was is in ``folder``. Raises StartError."""
    async with rigged(case, folder) as rig:
        say(f"{case.name}: {case.purpose} (seed {case.seed}, {case.duration_s:g} s, {case.stack})")
        injector, never = Injector(rig), asyncio.Event()
        await attack(rig, injector.run(), never)
        found, violations = await judged(rig, say)
        return found, [*violations, *(Violation("faults", "injector", each) for each in injector.failed)]


async def run_matrix(
    case: Case, folder: Path, say: Say, action: str, only: Callable[[Point], bool] = lambda _: True
) -> Outcome:
    """Run the matrix of failpoints over the case's load, which lasts as long as it takes. Raises StartError."""
    async with rigged(case, folder) as rig:
        matrix, stop = Matrix(rig, action, only), asyncio.Event()
        say(f"{case.name}: {action} at each of {sum(map(only, POINTS))} failpoints (seed {case.seed}, {case.stack})")

        async def faults() -> None:
            try:
                await matrix.run()
            finally:
                stop.set()

        await attack(rig, faults(), stop)
        say(f"{case.name}: {len(matrix.hit)} reached, {len(matrix.missed)} not")
        if action == "raise":
            say(f"{case.name}: {await _put_back(rig)} dead letters of defects are put back, as a person would")
        found, violations = await judged(rig, say)
        return found, [*violations, *(Violation("failpoints", each, "was never reached") for each in matrix.missed)]


async def _put_back(rig: Rig) -> int:
    """Replay what a stage gave up for a defect of its own; how many letters that were."""
    audit = Audit(str(uuid.uuid4()), "chaos")
    current = letters.current(await letters.read(rig.kafka))
    messages = [replayed(each, audit) for each in current if each.letter.reason == "internal-error"]
    async with Publisher(rig.kafka) as publisher:
        await publisher.publish(messages)
    return len(messages)


async def judged(rig: Rig, say: Say) -> Outcome:
    """Wait until all is over, collect, and judge."""
    say(f"{rig.case.name}: healed; waiting until all is over")
    settled = await over(rig)
    _metrics(rig)
    found = await collect.evidence(rig)
    violations = [*checker.check(found), *await _parity(rig), *fallen(rig)]
    if not settled:
        violations.append(Violation("in-time", "everything", "not over, long after the last heal"))
    return found, violations


async def attack(rig: Rig, faults: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """The load and the faults, both to their ends; every role runs and serves afterwards. Raises StartError."""
    case, merchants = rig.case, list(producers(rig.case))
    async with asyncio.TaskGroup() as group:
        group.create_task(over_http(case, rig.ingress, rig.keys, rig.folder, stop))
        group.create_task(over_kafka(case, rig.kafka, merchants, rig.folder, stop))
        group.create_task(in_transactions(case, rig.kafka, merchants, rig.folder, stop))
        group.create_task(faults)
    await asyncio.gather(*(role.ready() for role in rig.roles))


async def over(rig: Rig) -> bool:
    """Wait until every accepted payment has ended and the topics are quiet. False: it takes too long."""
    wanted = await asyncio.to_thread(_accepted, rig.folder)  # the proxies are in this loop, and calls go on
    rate = sum(lane.limit * 1000 / lane.window_ms for lane in rig.case.lanes.values())
    end = time.monotonic() + GRACE_S + LATEST_S + len(wanted) / rate
    quiet_since, ends = time.monotonic(), -1
    while time.monotonic() < end:
        await asyncio.sleep(LOOK_S)
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            async with _database(rig) as db:
                waiting = await db.fetchval(_WAITING, _ENDED) or await db.fetchval(_UNKNOWN, wanted)
            now = await _written(rig)
            if waiting or now != ends:
                quiet_since, ends = time.monotonic(), now
            elif time.monotonic() - quiet_since > QUIET_S:
                return True
    return False


def _accepted(folder: Path) -> list[uuid.UUID]:
    """The payments of which a client was told that they are taken."""
    requests = asked.asked(history.read(sorted(folder.glob("client-*.jsonl"))))
    told = {Answer.ACCEPTED, Answer.REPEATED}
    return list({uuid.UUID(each.payment_id) for each in requests if each.answer in told and not each.bad | each.cancel})


async def _written(rig: Rig) -> int:
    """How much stands on all topics: it rises with whatever still happens."""
    counts = await partition_counts(rig.kafka)
    parts = [
        TopicPartition(name, number)
        for name in (topics.COMMANDS, topics.EVENTS, topics.DEAD_LETTER)
        for number in range(counts[name])
    ]
    return sum((await end_offsets(rig.kafka, parts)).values())


@asynccontextmanager
async def _database(rig: Rig) -> AsyncIterator[asyncpg.Connection]:
    db = await asyncpg.connect(rig.stack.database_url, timeout=5, command_timeout=10)
    try:
        yield db
    finally:
        await db.close(timeout=2)


async def _parity(rig: Rig) -> list[Violation]:
    try:
        report = await projection.check(rig.kafka, rig.stack.database_url, within_s=PARITY_S)
    except projection.Behind as error:
        return [Violation("parity", "sink", str(error))]
    return [Violation("parity", payment, said) for payment, said in report.differences.items()]


def fallen(rig: Rig) -> list[Violation]:
    """Roles that ended by themselves with a status of their own that none of ours may have: a traceback in the log."""
    return [
        Violation("roles", role.name, f"ended with {status}")
        for role in rig.roles
        for status in role.ended
        if status not in {0, 1, -9, -15}
    ]


def _metrics(rig: Rig) -> None:
    """Keep what each role counts, for whoever looks into a failure."""
    for role in rig.roles:
        url = role.url.removesuffix("/readyz") + "/metrics"
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own http address
            (rig.folder / f"{role.name}.metrics").write_bytes(answer.read())
