from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.chaos.history import Entry, Kind, Torn, Writer, learned, read


def test_what_is_written_is_read_in_order(tmp_path: Path) -> None:
    ticks = itertools.count(5)
    with Writer(tmp_path / "a", "client", lambda: next(ticks)) as writer:
        writer.write(Kind.INVOKE, "1", amount="1.00", text="é\n")
        writer.write(Kind.OK, "1", status=201)
    assert list(read([tmp_path / "a"])) == [
        Entry(kind=Kind.INVOKE, at_ns=5, actor="client", of="1", data={"amount": "1.00", "text": "é\n"}),
        Entry(kind=Kind.OK, at_ns=6, actor="client", of="1", data={"status": 201}),
    ]


def test_a_killed_writer_leaves_whole_lines_and_at_most_one_cut(tmp_path: Path) -> None:
    path = tmp_path / "a"
    code = (
        "import sys, pathlib; from ops.chaos.history import Writer, Kind\n"
        "with Writer(pathlib.Path(sys.argv[1]), 'client') as writer:\n"
        "    for number in range(10**9):\n"
        "        writer.write(Kind.INVOKE, str(number))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while not path.exists() or path.stat().st_size < 10_000:
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [entry.of for entry in read([path])] == [str(number) for number in range(len(list(read([path]))))]


def test_a_cut_last_line_is_left_out_and_any_other_is_an_error(tmp_path: Path) -> None:
    with Writer(tmp_path / "a", "client") as writer:
        writer.write(Kind.INVOKE, "1")
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole + whole[:20])
    assert len(list(read([tmp_path / "a"]))) == 1
    (tmp_path / "a").write_bytes(whole[:20] + b"\n" + whole)
    with pytest.raises(Torn, match="line 1"):
        list(read([tmp_path / "a"]))


def entry(kind: Kind, of: str, at_ns: int = 0) -> Entry:
    return Entry(kind=kind, at_ns=at_ns, actor="client", of=of)


def test_operations_end_as_their_clients_learned_or_not_at_all() -> None:
    entries = [entry(Kind.OK, "1", 9), entry(Kind.INVOKE, "2", 2), entry(Kind.INVOKE, "1", 1), entry(Kind.FAULT, "x")]
    found = learned(entries)
    assert {of: end.kind if end else None for of, (_, end) in found.items()} == {"1": Kind.OK, "2": None}


@pytest.mark.parametrize(
    "kinds",
    [[Kind.INVOKE, Kind.INVOKE], [Kind.OK], [Kind.INVOKE, Kind.OK, Kind.FAIL], [Kind.INVOKE, Kind.INFO, Kind.OK]],
)
def test_a_history_that_contradicts_itself_is_refused(kinds: list[Kind]) -> None:
    with pytest.raises(ValueError, match="operation 1"):
        learned(entry(kind, "1", at_ns) for at_ns, kind in enumerate(kinds))
