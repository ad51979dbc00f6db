"""Apache Kafka starts whatever cluster id it draws, and a start that fails says why."""

from __future__ import annotations

import shutil
import stat
import uuid
from pathlib import Path

import pytest

from ops.kafka import broker
from ops.local import child
from ops.local.child import StartError
from ops.local.stack import running

pytestmark = pytest.mark.kafka

DASHED = uuid.UUID(bytes=b"\xf8" + bytes(15))
"""In URL-safe base64 it begins with a dash, as one random id in 64 does."""


@pytest.mark.long
async def test_a_cluster_id_that_begins_with_a_dash_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: DASHED)
    folder = child.run_folder("kifiya-test-")
    try:
        nodes, bootstrap = await broker.prepare(folder)
    finally:
        shutil.rmtree(folder)
    assert len(nodes) == 1
    assert bootstrap.startswith("127.0.0.1:")


@pytest.mark.long
async def test_a_node_takes_its_classes_from_the_archive() -> None:
    java, jars = shutil.which("java"), broker.fetch().resolve()
    async with running("apache", parts=frozenset({"kafka"}), overrides=False) as stack:
        loaded = Path(f"/proc/{stack.pids['kafka']}/maps").read_text()
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in jars.parents):  # else nodes run from a copy
        assert str(await broker.archived(java or "", jars)) in loaded


async def test_a_start_that_fails_deep_down_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nested(folder: Path, nodes: int) -> tuple[list[child.Child], str]:
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [StartError(f"no room in {folder} for {nodes}")])])

    monkeypatch.setattr(broker, "prepare", nested)
    with pytest.raises(StartError, match="no room"):
        async with running("apache", parts=frozenset({"kafka"}), overrides=False):
            pass
