"""One run of a case from its beginning to its verdict, in a folder of its own; several at once, each in a process."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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

Work = Callable[[Path], Coroutine[Any, Any, Outcome]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of it. ``folder`` holds all that it left: where nothing is wrong and nobody keeps it, it is gone."""

    case: Case
    evidence: Evidence
    faults: Sequence[Entry]
    violations: Sequence[Violation]
    seconds: float
    folder: Path


def say(line: str) -> None:
    """A line to whoever waits, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def attempt(case: Case, work: Work, keep: Path | None) -> Attempt:
    """Do this work, which takes its folder. Raises StartError."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"kifiya-chaos-{case.name}-{case.seed}-", dir=keep))
    for name in ("aiokafka", "asyncio"):  # the clients are attacked, too, and complain aloud of every try
        logging.getLogger(name).setLevel(logging.CRITICAL)
    began = time.monotonic()
    found, violations = asyncio.run(work(folder))
    faults = list(history.read(sorted(folder.glob("faults*.jsonl"))))
    if not violations and keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return Attempt(case, found, faults, violations, time.monotonic() - began, folder)


def of_case(case: Case, keep: Path | None) -> Attempt:
    """Run a case. Raises StartError."""
    return attempt(case, partial(run.run, case, say=say), keep)


def at_once(chosen: Sequence[Case], keep: Path | None, jobs: int) -> Iterator[Attempt]:
    """Run these cases, ``jobs`` at once, and tell of each as it ends. Raises StartError."""
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for each in as_completed([pool.submit(of_case, case, keep) for case in chosen]):
                yield each.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
