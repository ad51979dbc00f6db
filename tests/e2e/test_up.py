"""``kifiya up`` itself: what it prints, what it supervises, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from schemas import identity
from tests.e2e.conftest import FAST
from tests.e2e.gateway import Gateway, running, until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

ROLES = {"ingress", "intake", "dispatch", "delay", "sink"}


def descendants(pid: int) -> set[int]:
    """Processes that come from this one, itself left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: set[int] = set()
    while True:
        more = {child for child, parent in parents.items() if parent in found | {pid}} - found
        if not more:
            return found
        found |= more


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_the_json_line_says_where_everything_is(gateway: Gateway) -> None:
    found = await gateway.status()
    for name in ("ingress", "simulator"):
        parts = urlsplit(found[name])
        assert (parts.scheme, parts.path) == ("http", "")
        assert parts.port
    assert found["kafka"].rpartition(":")[2].isdigit()
    assert found["redis"].startswith("redis://")
    assert found["postgres"].startswith("postgresql://")
    assert set(found["pids"]) >= ROLES
    assert found["merchant_id"] == gateway.merchant_id
    assert found["api_key"].startswith("kfy_test_")
    for role in ROLES:
        command = Path(f"/proc/{found['pids'][role]}/cmdline").read_bytes()
        assert b"kifiya up" not in command
        assert b"sh\0-c" not in command


async def kifiya(gateway: Gateway, *arguments: str) -> str:
    """What a command prints beside this gateway."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.cli.main", *arguments,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "KIFIYA_STATE": str(gateway.state)},
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return out.decode()


async def test_over_kafka_a_stranger_speaks_for_the_gateways_own_merchant_only(gateway: Gateway) -> None:
    other = f"m-{uuid.uuid4().hex[:12]}"
    await kifiya(gateway, "merchants", "add", other)
    key = (await kifiya(gateway, "keys", "create", other)).strip()
    over_http = await gateway.http.post(
        f"{gateway.ingress}/v1/payments",
        json=gateway.body(merchant_id=other),
        headers={"Authorization": f"Bearer {key}", "Idempotency-Key": uuid.uuid4().hex},
    )
    assert over_http.status_code == 201, over_http.text
    fields = {"amount": "1.00", "currency": "USD", "payment-method": "pm_approve", "merchant": other}
    options = [word for name, value in fields.items() for word in (f"--{name}", value)]
    by_command = json.loads(await kifiya(gateway, "send", *options, "-o", "json"))
    async with gateway.producer() as producer:
        ids = []
        for merchant in (gateway.merchant_id, other):
            name = uuid.uuid4().hex
            command = json.dumps({"type": "create", "idempotency_key": name, **gateway.body(merchant_id=merchant)})
            await producer.send_and_wait("payments.commands", command.encode())
            ids.append(identity.payment_id(merchant, name))
    ends = [over_http.json()["payment_id"], by_command["payment_id"], ids[0]]
    assert set((await gateway.wait_final(ends)).values()) == {"COMPLETED"}

    async def letter() -> str | None:
        query = "SELECT reason FROM dead_letters WHERE original = $1"
        found: str | None = await gateway.db.fetchval(query, command.encode())
        return found

    assert await until(letter, "the dead letter") == "merchant-not-admitted"
    assert await gateway.rows(ids[1:]) == {}
    secret = gateway.state.with_suffix(".secret").read_text()
    assert secret not in json.dumps(await gateway.status()) + (gateway.state.parent / "log").read_text(errors="replace")


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
async def test_nothing_is_left_behind(how: signal.Signals) -> None:
    async with running("embedded", LANES=FAST) as own:
        left = descendants(own.process.pid)
        assert len(left) >= len(ROLES) + 4
        os.kill(own.process.pid, how)
        code = await asyncio.wait_for(own.process.wait(), 30)
        assert code == (0 if how is signal.SIGTERM else -signal.SIGKILL)

        async def gone() -> bool:
            return not any(alive(pid) for pid in left)

        await until(gone, "all processes are gone", 10)
