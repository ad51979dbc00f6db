"""The table of failpoints names all that stand in the code, and each role arms those of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.chaos.points import POINTS, ROLES, declared
from ops.cli.main import app

ROOT = Path(__file__).parents[4]
WRITTEN = re.compile(r'Failpoint\(\s*"([a-z.-]+)"')


def test_every_failpoint_of_the_code_is_in_the_table_for_each_role_that_reaches_it() -> None:
    table: dict[str, set[str]] = {}
    for point in POINTS:
        assert point.name not in table.setdefault(point.role, set()), point
        table[point.role].add(point.name)
    assert table == declared()
    assert len({point.label for point in POINTS}) == len(POINTS)


def test_no_failpoint_stands_in_a_module_that_no_role_names() -> None:
    named = {module for modules in ROLES.values() for module in modules}
    found = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): WRITTEN.findall(path.read_text())
        for package in ("ingress", "streams", "sinks", "ops")
        for path in (ROOT / package).rglob("*.py")
    }
    assert {module for module, names in found.items() if names} == named
    assert len({name for names in found.values() for name in names}) >= 35


def test_every_one_is_reached_where_it_stands() -> None:
    for names in ROLES.values():
        for module in names:
            text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
            for constant in re.findall(r"([A-Z_]+): Final = Failpoint\(", text):
                assert len(re.findall(rf"\b{constant}\b", text)) >= 2, (module, constant)


def test_the_command_line_lists_them() -> None:
    told = CliRunner().invoke(app, ["chaos", "failpoints"])
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert lines[:-1] == [f"{point.role:<9} {point.name}" for point in POINTS]


@pytest.mark.parametrize("module", ["streams", "sinks"])
def test_a_role_says_which_failpoint_it_does_not_have(module: str) -> None:
    arguments = [module, "intake"] if module == "streams" else [module]
    environment = os.environ | {
        "KAFKA_BOOTSTRAP": "127.0.0.1:9", "DATABASE_URL": "postgresql://k:k@127.0.0.1:9/k",
        "FAILPOINTS": "relay.x=kill",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{module}: FAILPOINTS: relay.x: is no failpoint of this role" in done.stderr
