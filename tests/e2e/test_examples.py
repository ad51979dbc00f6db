"""The examples run as they stand, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import uuid
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


async def run(gateway: Gateway, *command: str, code: int = 0) -> tuple[str, str]:
    """What an example printed on stdout and stderr."""
    known = {
        "KIFIYA_URL": gateway.ingress, "KIFIYA_API_KEY": gateway.api_key, "KIFIYA_MERCHANT": gateway.merchant_id,
        "KAFKA_BOOTSTRAP": gateway.kafka, "DATABASE_URL": gateway.postgres,
    }  # fmt: skip
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=EXAMPLES, env={**plain, **known}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == code, (out + err).decode()
    return out.decode(), err.decode()


async def test_the_curl_script_goes_from_the_create_to_the_list(gateway: Gateway) -> None:
    out, _ = await run(gateway, "bash", "payments.sh")
    assert [line.rpartition(" ")[2] for line in out.splitlines() if line.startswith("POST /v1/payments ->")] == [
        "201", "409", "422",
    ]  # fmt: skip
    assert "/cancel -> 409" in out
    assert out.endswith("is COMPLETED\n")


async def test_the_curl_script_stops_where_the_key_is_none(gateway: Gateway) -> None:
    _, err = await run(gateway, "env", "KIFIYA_API_KEY=kfy_test_none", "bash", "payments.sh", code=1)
    assert "expected 201" in err
    assert "invalid-api-key" in err


async def test_the_client_creates_once_under_each_key(gateway: Gateway) -> None:
    out, _ = await run(gateway, sys.executable, "payments.py")
    assert out.splitlines() == [
        "one payment: True", "ended: COMPLETED", "refused: invalid-field amount", "five more: ['FAILED']",
    ]  # fmt: skip


async def test_the_producer_reads_its_results(gateway: Gateway) -> None:
    out, _ = await run(gateway, sys.executable, "produce.py", "6")
    assert sorted(out.splitlines()) == ["pm_approve COMPLETED"] * 4 + ["pm_decline FAILED"] * 2


async def test_the_follower_goes_on_where_it_stopped(gateway: Gateway) -> None:
    payment_id = await gateway.create(uuid.uuid4().hex)
    await gateway.wait_final([payment_id])
    first, cursor = await run(gateway, sys.executable, "follow_events.py", "beginning", "2")
    rest, _ = await run(gateway, sys.executable, "follow_events.py", cursor.strip().splitlines()[-1], "2")
    assert len(first.splitlines()) == len(rest.splitlines()) == 2
    assert not set(first.splitlines()) & set(rest.splitlines())


async def test_the_analyst_finds_the_same_in_sql_and_on_the_topic(gateway: Gateway) -> None:
    await gateway.wait_final([await gateway.create(), await gateway.create(payment_method="pm_decline")])
    out, _ = await run(gateway, sys.executable, "analyst.py")
    for question in ("turnover", "refusals", "waiting", "backlog", "retries"):
        assert f"\n{question}: " in out
    assert "reason=insufficient_funds" in out
    assert out.endswith("the view has nothing that the topic has not: True\n")


async def test_readmes_batch_is_answered_as_readme_says(gateway: Gateway) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    (block,) = re.findall(r"^```console\n\$ (printf .*?)^```", readme, re.MULTILINE | re.DOTALL)
    command = "".join(line for line in block.splitlines(keepends=True) if not line.startswith("{"))
    promised = [line for line in block.splitlines() if line.startswith("{")]
    for shown, real in (
        ("http://127.0.0.1:8000", gateway.ingress),
        ("kfy_test_...", gateway.api_key),
        ('"order-', f'"{uuid.uuid4().hex}-'),
    ):
        assert shown in command
        command = command.replace(shown, real)
    out, _ = await run(gateway, "bash", "-c", command)
    for answer, promise in zip(out.splitlines(), promised, strict=True):
        said = re.findall(r'"[a-z_]+":(?:\d+|"[^".]+")', promise)
        assert len(said) > 2
        assert [pair for pair in said if pair not in answer] == []
