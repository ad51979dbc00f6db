"""``python -m ops.chaos.mutants``: deliberate defects of the product, one at a time in a copy of it; tests see each.

A mutant is a text that stands once in a file, and another in its place. One whose text is gone fails too: it has to be
written anew, or the defect that it stands for would be looked for no more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

TABLE: Final = Path(__file__).with_name("mutants.json")
ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("ingress", "ops", "schemas", "sinks", "streams", "tests", "pyproject.toml", "README.md", "Makefile")
WITHIN_S: Final = 180.0
SEEN: Final = 1
"""pytest's exit status where tests ran and some failed; any other is no verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A defect: in ``path``, ``new`` stands where ``old`` stood; ``tests`` are the files that have to see it."""

    name: str
    says: str
    path: str
    old: str
    new: str
    tests: str


class Gone(ValueError):
    """The text that a mutant changes does not stand there just once."""


def table() -> list[Mutant]:
    """All mutants."""
    return [Mutant(**raw) for raw in json.loads(TABLE.read_text())]


def mutated(text: str, mutant: Mutant) -> str:
    """The file with the defect in it. Raises Gone. Pure."""
    if (count := text.count(mutant.old)) != 1:
        raise Gone(f"{mutant.name}: its text stands {count} times in {mutant.path}")
    return text.replace(mutant.old, mutant.new)


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of the product, for one mutant at a time."""
    with tempfile.TemporaryDirectory(prefix="kifiya-mutants-") as name:
        folder = Path(name)
        for part in COPIED:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / part)
        yield folder


def judge(folder: Path, mutant: Mutant | None, tests: Sequence[str]) -> tuple[int, str]:
    """Exit status and last line of pytest over this copy, with the mutant in it. Raises Gone."""
    path = folder / (mutant.path if mutant else TABLE.name)
    good = path.read_text() if mutant else ""
    if mutant:
        path.write_text(mutated(good, mutant))
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "60", *tests],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, timeout=WITHIN_S, check=False,
        )  # fmt: skip
    finally:
        if mutant:
            path.write_text(good)
    lines = [line for line in done.stdout.splitlines() if line.strip()] or [done.stderr.strip()]
    return done.returncode, next((line for line in lines if line.startswith("FAILED")), lines[-1])


def main() -> None:
    """Judge every mutant; exit status 1 where one was not seen, or the product itself does not pass."""
    parser = argparse.ArgumentParser(prog="mutants")
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [mutant for mutant in table() if not arguments.names or mutant.name in arguments.names]
    began, failed = time.monotonic(), 0
    with ThreadPoolExecutor(arguments.jobs) as pool, copy() as one:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(arguments.jobs):
            folder = one if number == 0 else Path(shutil.copytree(one, f"{one}/copy-{number}"))
            copies.put(folder)
        tests = sorted({test for mutant in chosen for test in mutant.tests.split()})
        status, said = judge(one, None, tests)
        if status != 0:
            sys.exit(f"mutants: the product itself does not pass: {said}")

        def one_of(mutant: Mutant) -> tuple[bool, str]:
            folder = copies.get()
            try:
                found, line = judge(folder, mutant, mutant.tests.split())
            except (Gone, subprocess.TimeoutExpired) as error:
                return False, str(error)
            finally:
                copies.put(folder)
            return found == SEEN, line

        for mutant, (seen, line) in zip(chosen, pool.map(one_of, chosen), strict=True):
            failed += not seen
            mark = "seen" if seen else "NOT SEEN"
            sys.stdout.write(f"{mark:<9}{mutant.name:<28}{mutant.says}\n         {line[:150]}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen)} mutants, {len(chosen) - failed} seen, {time.monotonic() - began:.0f} s\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
