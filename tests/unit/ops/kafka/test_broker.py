"""Apache Kafka's jars are fetched once, however many processes need them at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
