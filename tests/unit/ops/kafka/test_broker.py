"""Apache Kafka's jars are fetched once, however many processes need them at the same time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.kafka import broker
from ops.local import child, probes

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


@pytest.fixture
def jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o755)
    monkeypatch.setattr(child, "unprivileged", dict)  # the test's own folders are open to its user alone
    monkeypatch.setattr(broker, "ARCHIVE_S", 5.0)

    async def serves(bootstrap: str, *, brokers: int) -> bool:
        del bootstrap, brokers
        return (tmp_path / "up").exists()

    monkeypatch.setattr(probes, "kafka", serves)
    folder = tmp_path / "jars"
    folder.mkdir()
    return folder


def java_of(folder: Path, script: str) -> str:
    """A Java that formats, and does this as a node; ``$made`` is the archive that it is asked for."""
    fake = folder / "java"
    fake.write_text(
        f"#!/bin/sh\necho $$ >> {folder}/calls\n"
        'for word in "$@"; do case "$word" in format) exit 0;; *AtExit=*) made="${word#*=}";; esac; done\n' + script
    )
    fake.chmod(0o755)
    return str(fake)


async def test_an_archive_of_classes_is_made_once(tmp_path: Path, jars: Path) -> None:
    java = java_of(
        tmp_path, "trap 'echo classes > $made; exit 0' TERM; touch ${0%java}up; while :; do sleep 0.01; done"
    )
    for _ in range(2):
        archive = await broker.archived(java, jars)
        assert archive is not None
        assert archive.read_text() == "classes\n"
    assert len((tmp_path / "calls").read_text().split()) == 2, "the format and the node"
    (tmp_path / "up").unlink()
    os.utime(java, (1, 1))  # another Java under the same name
    newer = await broker.archived(java, jars)
    assert newer is not None
    assert list(jars.iterdir()) == [newer]
    assert newer != archive


async def test_a_java_that_makes_no_archive_of_classes_is_not_asked_again(tmp_path: Path, jars: Path) -> None:
    java = java_of(tmp_path, "trap 'exit 0' TERM; touch ${0%java}up; while :; do sleep 0.01; done")
    for _ in range(2):
        assert await broker.archived(java, jars) is None
    assert len((tmp_path / "calls").read_text().split()) == 2


@pytest.mark.parametrize("script", ["exit 1", "while :; do sleep 0.01; done"])
async def test_where_no_archive_could_be_made_it_is_tried_again(
    tmp_path: Path, jars: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """The node ends at once, or never serves."""
    monkeypatch.setattr(broker, "ARCHIVE_S", 1.0)
    leftover = jars / "classes-000000000000.part"
    leftover.write_text("half of one")
    java, asked = java_of(tmp_path, script), [0]
    for _ in range(2):
        assert await broker.archived(java, jars) is None
        asked.append(len((tmp_path / "calls").read_text().split()))
    assert asked == sorted(set(asked))
    assert list(jars.iterdir()) == [leftover]


async def test_a_start_that_is_cut_off_leaves_no_archive(tmp_path: Path, jars: Path) -> None:
    java = java_of(tmp_path, "while :; do sleep 0.01; done")
    making = asyncio.create_task(broker.archived(java, jars))
    calls = tmp_path / "calls"
    async with asyncio.timeout(20):
        while not calls.exists() or len(calls.read_text().split()) < 2:
            await asyncio.sleep(0.01)
    making.cancel()
    await asyncio.wait({making})
    assert making.cancelled()
    assert list(jars.iterdir()) == []


def test_a_node_alone_waits_less_for_its_former_life_than_one_of_three(tmp_path: Path) -> None:
    """By Kafka's own setting nine seconds pass before a node that was killed serves again."""
    ports = [(1, 2), (3, 4), (5, 6)]
    assert broker._properties(1, ports[:1], tmp_path)["broker.session.timeout.ms"] == 2000
    assert "broker.session.timeout.ms" not in broker._properties(1, ports, tmp_path)
