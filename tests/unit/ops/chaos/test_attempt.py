"""Cases at once: what befalls one is its own, nobody outlives whoever started it, and the rest is told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.chaos import case as cases
from ops.chaos import run
from ops.chaos.attempt import Attempt, Told, Unrun, at_once, attempt, of_case, why
from ops.chaos.case import Case
from ops.chaos.checker import Violation
from ops.chaos.run import Outcome
from ops.local.child import StartError
from tests.unit.ops.chaos.world import healthy
from tests.unit.ops.cli.run import complaint, kifiya

FATES = ("well", "dies", "well-too", "well-at-last")


def case_of(name: str) -> Case:
    return replace(cases.load("roles"), name=name)


def fate(case: Case, _: Path | None) -> Unrun:
    """In place of a run: it ends as its name says, and tells who ran it."""
    if case.name == "dies":
        os._exit(9)
    return Unrun(case, str(os.getpid()))


def for_ever(_: Case, keep: Path | None) -> Unrun:
    assert keep is not None
    (keep / str(os.getpid())).touch()
    time.sleep(600)
    raise AssertionError


def test_a_worker_that_dies_takes_no_other_case_with_it() -> None:
    found = dict(at_once([case_of(name) for name in FATES], None, 2, fate))
    assert sorted(found) == list(range(len(FATES)))
    told = {each.case.name: each.why for each in found.values() if isinstance(each, Unrun)}
    assert told.pop("dies").startswith("BrokenProcessPool: ")
    assert len({*told.values(), str(os.getpid())}) == len(FATES)


@pytest.mark.parametrize(("alone", "beside"), [(0, [1, 2, 1, 2]), (1, [1, 1, 2, 1]), (2, [1, 1, 1, 2])])
def test_the_first_ones_run_alone(alone: int, beside: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """``beside``: how many run once each has begun, itself among them; all that run end at the same time."""
    begun: list[int] = []

    class Pool:
        running = 0

        def __init__(self, *_: object, **__: object) -> None: ...

        def submit(self, one: Any, case: Case, keep: Path | None) -> Future[Any]:
            Pool.running += 1
            begun.append(Pool.running)
            found: Future[Any] = Future()
            found.set_result(one(case, keep))
            return found

        def shutdown(self, **_: object) -> None:
            Pool.running -= 1

    monkeypatch.setattr("ops.chaos.attempt.ProcessPoolExecutor", Pool)
    told = at_once([case_of(name) for name in "abcd"], None, 2, fate, alone=alone)
    assert sorted(place for place, _ in told) == [0, 1, 2, 3]
    assert begun == beside


def test_one_at_a_time_runs_here() -> None:
    found = list(at_once([case_of("a"), case_of("b")], None, 1, fate))
    assert [(place, each.case.name, each.why) for place, each in found if isinstance(each, Unrun)] == [
        (0, "a", str(os.getpid())),
        (1, "b", str(os.getpid())),
    ]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_a_worker_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from ops.chaos.attempt import at_once\n"
        "from tests.unit.ops.chaos import test_attempt\n"
        "if __name__ == '__main__':\n"
        f"    list(at_once([test_attempt.case_of('a')], Path({str(tmp_path)!r}), 2, test_attempt.for_ever))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[4])
    try:
        wait_until(lambda: any(tmp_path.iterdir()))
        [pid] = [int(path.name) for path in tmp_path.iterdir()]
        assert alive(pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: not alive(pid))


def wait_until(holds: Any, within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StartError("kafka did not\nanswer"), "kafka did not | answer"),
        (ValueError("full"), "ValueError: full"),
        (ExceptionGroup("two", [KeyError("x"), ExceptionGroup("", [OSError("gone")])]), "KeyError: 'x'; OSError: gone"),
    ],
)
def test_why_a_case_could_not_run_is_one_line(error: Exception, said: str) -> None:
    assert why(error) == said
    error.add_note("what it left is in /x")
    assert why(error) == f"{said}; what it left is in /x"


def test_a_run_that_fails_leaves_its_traceback(tmp_path: Path) -> None:
    async def work(folder: Path) -> Any:
        await asyncio.sleep(0)
        raise ValueError(f"{folder.name} is full")

    with pytest.raises(ValueError, match="is full") as told:
        attempt(case_of("a"), work, tmp_path)
    [folder] = tmp_path.iterdir()
    assert "is full" in (folder / "traceback.txt").read_text()
    assert why(told.value).endswith(f"what it left is in {folder}")


def told_of(name: str, *promises: str) -> Attempt:
    return Attempt(
        case_of(name), healthy().evidence(), [], [Violation(each, "p0", "x") for each in promises], 1, Path()
    )


def test_the_ledger_is_told_of_all_that_ran_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(*_: object, **__: object) -> Iterator[Told]:
        yield 2, told_of("storm", "nothing-lost")
        yield 1, Unrun(replace(case_of("network"), seed=7), "kafka did not answer")
        yield 0, told_of("roles", "nothing-lost")

    monkeypatch.setattr("ops.chaos.attempt.at_once", ends)
    found = kifiya("chaos", "run", "roles", "network", "storm", "--seed", "7", "--jobs", "2")
    assert found.exit_code == 1
    lines = found.stdout.splitlines()
    place = lines.index("network: could not run: kafka did not answer")
    assert lines[place + 1] == "  repeat it: kifiya chaos run network --seed 7 --duration 60"
    assert [line.split(":")[0].strip() for line in lines if "nothing-lost: p0" in line] == ["roles", "storm"]


@pytest.mark.parametrize(
    ("told", "status"),
    [(told_of("roles"), 0), (told_of("roles", "in-time"), 1), (Unrun(case_of("roles"), "no"), 1)],
    ids=["kept", "broken", "not run"],
)
def test_the_exit_status_is_0_where_all_ran_and_all_held(
    told: Attempt | Unrun, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.chaos.attempt.at_once", lambda *_, **__: iter([(0, told)]))
    assert kifiya("chaos", "run", "roles").exit_code == status


def test_a_case_that_is_none_is_told_before_any_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.chaos.attempt.at_once", lambda *_, **__: pytest.fail("nothing is to run"))
    assert complaint(kifiya("chaos", "run", "roles", "moon")).startswith("moon: there is no such case")


def test_a_case_with_failpoints_takes_the_roles_through_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def run_matrix(case: Case, folder: Path, *, say: Callable[[str], None], action: str) -> Outcome:
        say(f"in {folder}")
        asked.append((case.name, action))
        raise StartError("enough")

    monkeypatch.setattr(run, "run_matrix", run_matrix)
    found = of_case(cases.load("failpoints"), tmp_path)
    assert isinstance(found, Unrun)
    assert "enough" in found.why
    assert asked == [("failpoints", "kill")]


def test_a_run_that_breaks_a_promise_leaves_what_it_broke(tmp_path: Path) -> None:
    async def work(_: Path) -> Outcome:
        await asyncio.sleep(0)
        return healthy().evidence(), [Violation("in-time", "payment-1", "ended late")]

    assert (
        attempt(case_of("a"), work, tmp_path).folder / "broken.txt"
    ).read_text() == "in-time: payment-1 ended late\n"
