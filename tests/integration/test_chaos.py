"""A case from beginning to end: real processes attacked, judged, told; and a limit that is not kept is seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.chaos import case as cases
from ops.chaos import checker, history, run
from ops.chaos.evidence import Limit
from ops.chaos.ledger import Ledger

pytestmark = pytest.mark.long

CASE: dict[str, Any] = {
    "name": "small", "purpose": "something of everything", "duration_s": 10, "stack": "embedded",
    "lanes": {"wide": {"limit": 20}},
    "workload": {"http": 6, "kafka": 4, "cancels": 0.1, "bad": 0.1, "methods": {"pm_approve": 8, "pm_503_twice": 1}},
    "faults": [
        {"do": "kill", "what": "dispatch", "at_s": [3]},
        {"do": "flush", "what": "redis", "at_s": [4]},
        {"do": "drop-answers", "what": "postgres", "at_s": [5], "for_s": 2},
    ],
}  # fmt: skip


@pytest.mark.timeout(400)
async def test_a_case_is_run_judged_and_told(tmp_path: Path) -> None:
    said: list[str] = []
    case = cases.parse(json.dumps(CASE))
    evidence, violations = await run.run(case, tmp_path, said.append)
    assert violations == [], said
    ledger = Ledger()
    ledger.add(case.name, evidence, history.read(sorted(tmp_path.glob("faults*.jsonl"))), violations)
    assert ledger.holds
    assert ledger.faults == {"kill dispatch": 1, "flush redis": 1, "drop-answers postgres": 1}
    assert ledger.accepted > 40
    assert ledger.charges == ledger.completed > 20
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {
        "client-http.jsonl", "client-kafka.jsonl", "faults.jsonl", "topics.jsonl",
    }  # fmt: skip
    stricter = replace(evidence, limits={"wide": Limit(1)})
    assert "limit-kept" in {each.promise for each in checker.check(stricter)}
