"""Apache Kafka's jars are fetched once, however many processes need them at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.kafka import broker
from ops.local import child

MVN = """#!/bin/sh
echo called >> "$CALLS"
for word in "$@"; do case "$word" in -DoutputDirectory=*) folder="${word#*=}";; esac; done
sleep 0.3
touch "$folder/kafka_2.13-0.jar"
"""
CODE = """
import pathlib, sys
from ops.kafka import broker
broker.cache_folder = lambda: pathlib.Path(sys.argv[1])
print(broker.fetch())
"""


def test_processes_that_need_the_jars_at_once_fetch_them_once(tmp_path: Path) -> None:
    mvn, calls, cache = tmp_path / "bin" / "mvn", tmp_path / "calls", tmp_path / "cache"
    mvn.parent.mkdir()
    mvn.write_text(MVN)
    mvn.chmod(0o755)
    environment = {**os.environ, "PATH": f"{mvn.parent}:{os.environ['PATH']}", "CALLS": str(calls)}
    processes = [
        subprocess.Popen([sys.executable, "-c", CODE, str(cache)], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    folders = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    (folder,) = folders
    assert (Path(folder) / "kafka_2.13-0.jar").exists()
    assert calls.read_text().splitlines() == ["called"]


@pytest.mark.parametrize("java", ["#!/bin/sh\nexit 1", "#!/bin/sh\ntouch $CALLS/$$"])
async def test_a_java_that_makes_no_archive_of_classes_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, java: str
) -> None:
    """It fails at the format of the node's storage; or it does that, and the node ends at once."""
    calls, jars, fake = tmp_path / "calls", tmp_path / "jars", tmp_path / "java"
    for folder in (calls, jars):
        folder.mkdir()
    calls.chmod(0o777)
    tmp_path.chmod(0o755)
    fake.write_text(java)
    fake.chmod(0o755)
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setattr(child, "unprivileged", dict)  # the test's own folders are open to its user alone
    assert not await broker._archived(str(fake), jars)
    asked = len(list(calls.iterdir()))
    assert not await broker._archived(str(fake), jars)
    assert len(list(calls.iterdir())) == asked
    assert [path.name for path in jars.iterdir()] == [broker.CLASSES]
