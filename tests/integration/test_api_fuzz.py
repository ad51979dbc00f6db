"""Schemathesis over the whole API, stores in memory: every answer is described, and nothing leads to a 5xx of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.ingress.fakes import AUTHORIZED

FOLDER = Path(__file__).parent / "api_fuzz"
ROOT = Path(__file__).parents[2]


@contextmanager
def served() -> Iterator[str]:
    """The address of the app in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.ingress.served"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.poll() is None, "the app has died"
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def run(folder: Path, *options: str, within_s: float) -> tuple[int, str]:
    """How many cases schemathesis tried, and what it said. Raises AssertionError for any finding."""
    with served() as url:
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "--config-file", str(FOLDER / "schemathesis.toml"), "run",
                f"{url}/openapi.json", "--header", f"Authorization: {AUTHORIZED['Authorization']}",
                "--no-color", *options,
            ],
            cwd=folder, capture_output=True, text=True, timeout=within_s, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": str(FOLDER / "hooks.py")},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counted = re.search(r"(\d[\d,]*) generated", done.stdout)
    assert counted is not None, done.stdout[-2000:]
    return int(counted[1].replace(",", "")), done.stdout


def test_the_api_is_what_it_says(tmp_path: Path) -> None:
    """The same cases each time, and few: `make test` has little time."""
    cases, said = run(tmp_path, "--generation-deterministic", "--max-examples", "2", within_s=100)
    assert cases > 200
    assert re.search(r"Tested: +(\d+)", said)[1] == re.search(r"Selected: +(\d+)/\1", said)[1]  # type: ignore[index]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_api_is_what_it_says_ten_thousand_times(tmp_path: Path) -> None:
    cases, _ = run(tmp_path, "--generation-database", "none", "--max-examples", "1000", within_s=1700)
    assert cases >= 10_000
