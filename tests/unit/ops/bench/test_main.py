"""The command: which stack, which benches, what it prints, how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ops.bench import __main__ as main
from ops.bench import payments, rig
from ops.bench.figures import Aim, Figure
from ops.bench.rig import Bench, NotMeasured
from ops.local.child import StartError
from schemas import codec
from schemas.records import PaymentCommand


@pytest.mark.parametrize(
    ("asked", "java", "jars", "kind", "why"),
    [
        (None, True, True, "apache", "Java and Maven are there"),
        (None, False, True, "embedded", "Java is missing"),
        (None, True, False, "embedded", "Maven is missing"),
        ("embedded", True, True, "embedded", "as asked"),
        ("apache", False, False, "apache", "as asked"),
    ],
)
def test_apache_where_it_can_run_and_embedded_elsewhere(
    asked: str | None, java: bool, jars: bool, kind: str, why: str
) -> None:
    found, said = main.stack_of(asked, java=java, jars=jars)
    assert found == kind
    assert why in said


def test_the_machine_line_names_cores_python_and_broker() -> None:
    found = main.machine("apache")
    assert " cores" in found
    assert "Python 3." in found
    assert "Apache Kafka " in found
    assert "Tansu" in main.machine("embedded")


def test_the_table_is_plain_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    main.show([Figure("intake", "ours", [0.5], "x", Aim(0.7, at_least=True)), Figure("intake", "[peer]", [1], "/s")])
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "\x1b" not in out
    assert lines[0].split() == ["bench", "figure", "median", "least", "..", "most", "aim", "met"]
    assert lines[1].split() == ["intake", "ours", "0.50", "x", ">=", "0.70", "x", "NO"]
    assert lines[2].split() == ["[peer]", "1", "/s"]


@pytest.mark.parametrize(("bad", "says"), [(["nonsense"], "choose from ingress"), (["--runs", "0"], "1 or more")])
def test_a_wrong_argument_is_named(
    bad: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *bad])
    with pytest.raises(SystemExit, match="2"):
        main.main()
    assert says in capsys.readouterr().err


def test_whose_payments_the_bench_makes_a_gateway_of_its_own_admits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"KIFIYA_MERCHANT": "shop", "LANES": "{}", "PATH": "/bin"})
    main.own_surroundings()
    assert os.environ == {"KIFIYA_MERCHANT": payments.MERCHANT, "PATH": "/bin"}
    made = codec.decode(payments.command_of("run", 1).value or b"", PaymentCommand)
    assert made.merchant_id == payments.MERCHANT


@pytest.fixture
def sinking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A bench command with nothing in it but a sink bench that a test puts there."""
    monkeypatch.setattr(sys, "argv", ["bench", "sink", "--stack", "embedded"])
    monkeypatch.setattr(main, "state_folder", lambda: tmp_path / "state")
    monkeypatch.setattr(main, "configure_logging", lambda *_: None)
    return monkeypatch


def test_a_figure_that_misses_its_aim_is_no_failure(
    sinking: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def measure(bench: Bench) -> list[Figure]:
        assert (bench.kind, bench.runs, bench.quick) == ("embedded", 3, False)
        return [Figure("sink", "rows", [1, 2, 3], "/s", Aim(1000, at_least=True))]

    sinking.setattr("ops.bench.sink.measure", measure)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    assert "NO" in capsys.readouterr().out


def test_what_could_not_be_measured_is_said_and_is_a_failure(
    sinking: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def measure(_: Bench) -> list[Figure]:
        raise NotMeasured("not within 5 s: the first row")

    sinking.setattr("ops.bench.sink.measure", measure)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    assert "NOT MEASURED sink: not within 5 s: the first row" in capsys.readouterr().out


def test_a_bench_that_breaks_leaves_the_others_their_figures(
    sinking: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(_: Bench) -> list[Figure]:
        raise ConnectionError("the broker is away")

    async def measure(_: Bench) -> list[Figure]:
        return [Figure("sink", "rows", [7], "/s")]

    sinking.setattr(sys, "argv", ["bench", "sink", "intake", "--stack", "embedded"])
    sinking.setattr("ops.bench.intake.measure", broken)
    sinking.setattr("ops.bench.sink.measure", measure)
    with pytest.raises(SystemExit) as ended:
        main.main()
    out = capsys.readouterr().out
    assert ended.value.code == 1
    assert "NOT MEASURED intake: ConnectionError: the broker is away" in out
    assert "7 /s" in out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotMeasured("not within 5 s: a row"), "not within 5 s: a row"),
        (ValueError("odd"), "ValueError: odd"),
        (ExceptionGroup("g", [ExceptionGroup("h", [StartError("no Java"), OSError()])]), "no Java"),
    ],
)
def test_the_reason_is_the_first_error_in_any_group(error: Exception, said: str) -> None:
    assert main.reason(error) == said


def test_sigterm_ends_a_bench_in_order(sinking: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def measure(_: Bench) -> list[Figure]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)
        finally:
            ended.append("its processes")
        return []

    sinking.setattr("ops.bench.sink.measure", measure)
    with pytest.raises(SystemExit) as exited:
        main.main()
    assert exited.value.code == 143
    assert ended == ["its processes"]


async def test_a_wait_ends_with_a_sentence() -> None:
    async def never() -> bool:
        return False

    with pytest.raises(NotMeasured, match=r"not within 0.05 s: the moon"):
        await rig.until(never, "the moon", 0.05, 0.01)
