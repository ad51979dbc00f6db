"""One run of a case from its beginning to its verdict, in a folder of its own; several at once, each in a process."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ops.chaos import history, run
from ops.chaos.case import Case
from ops.chaos.checker import Violation
from ops.chaos.evidence import Evidence
from ops.chaos.history import Entry
from ops.chaos.run import Outcome
from ops.local.child import StartError, bind_to_parent

Work = Callable[[Path], Coroutine[Any, Any, Outcome]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of it, and the folder of all that it left: what it broke stands there in ``broken.txt``.

    Where nothing is broken and nobody keeps the folder, it is gone.
    """

    case: Case
    evidence: Evidence
    faults: Sequence[Entry]
    violations: Sequence[Violation]
    seconds: float
    folder: Path


@dataclass(frozen=True, slots=True)
class Unrun:
    """A case without a verdict, and why, in one line."""

    case: Case
    why: str


One = Callable[[Case, Path | None], Attempt | Unrun]
Told = tuple[int, Attempt | Unrun]


def say(line: str) -> None:
    """A line to whoever waits, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def attempt(case: Case, work: Work, keep: Path | None) -> Attempt:
    """Do this work, which takes its folder. Raises what the work does; its traceback stays in the folder."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"kifiya-chaos-{case.name}-{case.seed}-", dir=keep))
    for name in ("aiokafka", "asyncio"):  # the clients are attacked, too, and complain aloud of every try
        logging.getLogger(name).setLevel(logging.CRITICAL)
    began = time.monotonic()
    try:
        found, violations = asyncio.run(work(folder))
    except Exception as error:
        error.add_note(f"what it left is in {folder}")
        (folder / "traceback.txt").write_text(traceback.format_exc())
        raise
    faults = list(history.read(sorted(folder.glob("faults*.jsonl"))))
    if violations:
        told = "".join(f"{each.promise}: {each.subject} {each.detail}\n" for each in violations)
        (folder / "broken.txt").write_text(told)
    if not violations and keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return Attempt(case, found, faults, violations, time.monotonic() - began, folder)


def of_case(case: Case, keep: Path | None) -> Attempt | Unrun:
    """Run a case; what kept it from running is an answer, too: the others go on."""
    try:
        if case.at_failpoints:
            work = partial(run.run_matrix, case, say=say, action=case.at_failpoints)
            return attempt(case, work, keep)
        return attempt(case, partial(run.run, case, say=say), keep)
    except Exception as error:  # noqa: BLE001 - whatever it was, the others' verdicts stand
        return Unrun(case, why(error))


def why(error: BaseException) -> str:
    """An error in one line: what it says, or those that a group holds; where what is left lies. Pure."""
    if isinstance(error, BaseExceptionGroup):
        said = "; ".join(why(each) for each in error.exceptions)
    else:
        said = str(error) if isinstance(error, StartError) else f"{type(error).__name__}: {error}"
    return " | ".join("; ".join([said, *getattr(error, "__notes__", [])]).split("\n"))


def at_once(
    chosen: Sequence[Case], keep: Path | None, jobs: int, one: One = of_case, *, alone: int = 0
) -> Iterator[Told]:
    """Run these cases, ``jobs`` at once, and tell of each as it ends: its place among them, and what came of it.

    The first ``alone`` of them run one after another before the others begin. One at a time runs here; several have a
    process each, which dies with this one and takes no other with it.
    """
    if jobs == 1:
        yield from ((place, one(case, keep)) for place, case in enumerate(chosen))
        return
    waiting = deque(enumerate(chosen))
    running: dict[Future[Attempt | Unrun], tuple[int, ProcessPoolExecutor]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (1 if len(chosen) - len(waiting) - len(running) < alone else jobs):
                place, case = waiting.popleft()
                pool = ProcessPoolExecutor(
                    1, mp_context=multiprocessing.get_context("spawn"), initializer=die_with_parent
                )
                running[pool.submit(one, case, keep)] = place, pool
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for each in ended:
                place, pool = running.pop(each)
                try:
                    found = each.result()
                except Exception as error:  # noqa: BLE001 - its process died
                    found = Unrun(chosen[place], why(error))
                pool.shutdown()
                yield place, found
    finally:
        for each, (_, pool) in running.items():
            each.cancel()
            pool.shutdown(wait=False, cancel_futures=True)


def die_with_parent() -> None:
    """In a worker: be killed when the parent dies, and end now where it has died already."""
    bind_to_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)
