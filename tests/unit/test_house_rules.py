"""The house's rules, as far as no linter knows them: sizes, docstrings, a test for every module with logic, topics."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from schemas import topics

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "ingress", "streams", "sinks", "ops")
MOST_LINES = 400
MOST_LINES_OF_TABLES = 500
"""Tests are tables of cases: longer, and no harder to read."""
MOST_LINES_OF_A_FUNCTION = 70
AWAITED = {
    "streams.backoff",
    "streams.breaker",
    "streams.dedup",
    "streams.hold",
    "streams.limiter.sliding_log",
}
"""Pure modules whose tests are still to be written; nothing is ever added here."""

PRODUCT = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TEXTS = sorted(
    path
    for package in (*PACKAGES, "examples", "tests")
    for path in (ROOT / package).rglob("*")
    if path.suffix in {".py", ".lua", ".sql", ".yaml", ".yml", ".html", ".js", ".css", ".sh", ".toml"}
    and "__pycache__" not in path.parts
    and "vendor" not in path.parts
)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in TEXTS}
    most = {path: MOST_LINES_OF_TABLES if path in TESTS else MOST_LINES for path in lengths}
    assert {_name(path): lines for path, lines in lengths.items() if lines > most[path]} == {}


def test_no_function_is_longer_than_70_lines() -> None:
    found = {
        f"{_name(path)}:{function.name}": lines
        for path in PRODUCT
        for function in _functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert found == {}


def test_every_module_says_what_it_is() -> None:
    assert [_name(path) for path in PRODUCT if not ast.get_docstring(_tree(path))] == []


def test_everything_public_says_what_it_promises() -> None:
    silent = []
    for path in PRODUCT:
        holders: list[ast.Module | ast.ClassDef] = [_tree(path)]
        while holders:
            for node in holders.pop().body:
                if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                if node.name.startswith("_"):
                    continue
                if not ast.get_docstring(node):
                    silent.append(f"{_name(path)}:{node.name}")
                if isinstance(node, ast.ClassDef):
                    holders.append(node)
    assert silent == []


def test_docstrings_are_one_promise_and_little_more() -> None:
    """Whoever needs more than 12 lines to say it has not found the promise yet."""
    long = [
        f"{_name(path)}:{node.name}"
        for path in PRODUCT
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and len((ast.get_docstring(node) or "").splitlines()) > 12
    ]
    assert long == []


def test_nothing_is_left_for_later() -> None:
    mark = re.compile("TO" + "DO|FIX" + "ME|XX" + "X:|HA" + "CK:")
    assert [_name(path) for path in TEXTS if path != Path(__file__) and mark.search(path.read_text())] == []


def test_the_product_logs_and_never_prints() -> None:
    """The command line prints through rich and typer, which know where their output goes."""
    found = [
        f"{_name(path)}:{node.lineno}"
        for path in PRODUCT
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "pprint"}
    ]
    assert found == []


def test_no_folder_and_no_file_is_a_drawer() -> None:
    drawers = {"core", "utils", "util", "common", "helpers", "helper", "managers", "manager", "misc", "lib", "base"}
    folders = {folder for path in PRODUCT for folder in path.relative_to(ROOT).parts[:-1]}
    assert (folders | {path.stem for path in PRODUCT}) & drawers == set()
    assert "services" not in folders


def _imported(path: Path) -> set[str]:
    """Modules that a file imports, and the modules that it may import from packages."""
    found: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_imports_nothing_of_this_project(path: Path) -> None:
    assert {name.partition(".")[0] for name in _imported(path)} & {*PACKAGES, "tests"} == set()
    assert path.name in (path.parent / "README.md").read_text()


def _module(path: Path) -> str:
    return _name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def test_every_pure_module_has_a_test_of_its_own() -> None:
    """The pure ones are those that the import contract names, and all of the contract with the outside."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (pure,) = [contract["source_modules"] for contract in contracts if contract["name"].startswith("pure modules")]
    with_logic = {
        _module(path)
        for path in PRODUCT
        if any(isinstance(node, ast.If | ast.For | ast.Try) for node in ast.walk(_tree(path)))
    }
    wanted = with_logic & {*pure, *(_module(path) for path in PRODUCT if path.is_relative_to(ROOT / "schemas"))}
    twins = {module: ROOT / "tests" / "unit" / f"{module.replace('.', '/')}.py" for module in wanted}
    missing = [module for module, path in twins.items() if not path.with_name(f"test_{path.name}").exists()]
    assert set(missing) - AWAITED == set()


def test_no_module_is_out_of_the_tests_reach() -> None:
    """Each is imported by a test, started by one as a process, or imported by one that is."""
    modules = {_module(path): path for path in PRODUCT}
    texts = "\n".join(path.read_text() for path in TESTS)
    waiting = {name for path in TESTS for name in _imported(path)}
    waiting |= {name for name in modules if re.search(rf"[\"']{re.escape(name.removesuffix('.__main__'))}[\"']", texts)}
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in modules and name not in reached:
            reached.add(name)
            waiting |= _imported(modules[name])
    unreached = {name: path for name, path in modules.items() if name not in reached and path.stem != "__init__"}
    own_ways = {"migrations", "bench"}  # alembic loads the first, `make bench` runs the second
    assert sorted(name for name, path in unreached.items() if not own_ways & set(path.parts)) == []


def test_every_topic_says_what_it_is_for() -> None:
    purposes = [topic.purpose for topic in topics.declare(["simulator"])]
    assert [purpose for purpose in purposes if len(purpose) < 10] == []
    assert len(set(purposes)) == len(purposes)


@pytest.mark.parametrize(
    "topic",
    [topics.COMMANDS, topics.EVENTS, topics.RESULTS, topics.DEAD_LETTER, topics.lane_topic("<lane>"),
     topics.due_topic("<lane>"), topics.retry_topic("<tier>")],
)  # fmt: skip
def test_the_readme_tells_where_a_payment_travels(topic: str) -> None:
    assert topic in (ROOT / "README.md").read_text()


def test_the_import_contracts_hold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename="pyproject.toml", no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
