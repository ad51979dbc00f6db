"""The migrations are one chain, numbered as their files are: two that follow the same one let nobody migrate."""

from __future__ import annotations

from pathlib import Path

from alembic.script import ScriptDirectory

from sinks import migrate


def test_each_migration_follows_the_one_before() -> None:
    scripts = ScriptDirectory.from_config(migrate.config("postgresql://nobody@localhost:1/none"))
    found = sorted(scripts.walk_revisions(), key=lambda script: str(script.revision))
    assert [script.revision for script in found] == [f"{number:04}" for number in range(1, len(found) + 1)]
    assert [script.down_revision for script in found] == [None, *(script.revision for script in found[:-1])]
    assert all(Path(script.path).name.startswith(f"{script.revision}_") for script in found)
    assert len(found) == len(list((migrate.FOLDER / "migrations" / "versions").glob("*.py")))
