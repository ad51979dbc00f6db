"""The ingress as a process on real servers: accepted means stored once, and every repeat is told from it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
import uuid
from collections import Counter
from typing import Any

import httpx2
import pytest
import redis.asyncio as redis
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from ops.local.stack import Stack
from schemas import codec, identity, topics
from schemas import command as commands
from schemas.records import PaymentCommand
from tests.integration import http_role
from tests.integration.http_role import NOWHERE, Ingress, environment, ingress, prepare, published, until

pytestmark = pytest.mark.kafka


def told(answer: httpx2.Response) -> dict[str, Any]:
    """The payment in an answer, but for its place in the queue: that moves."""
    found: dict[str, Any] = answer.json()
    assert "queue" in found
    return found | {"queue": None}


@pytest.fixture
async def ready(stack: Stack) -> Stack:
    await prepare(stack)
    return stack


async def test_a_payment_is_stored_in_kafka_and_found_at_once(ready: Stack) -> None:
    async with ingress(environment(ready)) as role:
        await role.well()
        created = await role.post("order-1001", description="Überweisung 🎉", metadata={"order": "1"})
        assert created.status_code == 201
        payment_id = identity.payment_id(role.merchant, "order-1001")
        assert created.headers["location"] == f"/v1/payments/{payment_id}"
        found = await role.http.get(created.headers["location"])
        assert (found.status_code, told(found)) == (200, told(created))
        again = await role.post("order-1001", description="Überweisung 🎉", metadata={"order": "1"})
        assert (again.status_code, told(again)) == (409, told(created))
        other = await role.post("order-1001", amount="99.00")
        assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
        [command] = await published(ready, role.merchant)
        assert (command.payment_id, command.amount_minor, command.metadata) == (payment_id, 1250, {"order": "1"})


async def test_once_the_sink_has_it_the_current_state_is_told(ready: Stack) -> None:
    async with ingress(environment(ready)) as role:
        await role.well()
        created = await role.post("order-1")
        [command] = await published(ready, role.merchant)
        await http_role.store(ready, command, commands.fingerprint(command))
        found = await role.http.get(created.headers["location"])
        assert (found.json()["status"], found.json()["version"]) == ("COMPLETED", 5)
        assert found.json()["metadata"] == {"order": "1"}
        again = await role.post("order-1")
        assert (again.status_code, told(again)) == (409, told(found))
        client = redis.from_url(ready.redis_url)
        assert await client.delete(f"payment:{{{command.payment_id}}}") == 1  # as after a flush, or a day
        await client.aclose()
        assert (await role.post("order-1")).status_code == 409
        assert (await role.post("order-1", amount="1.00")).status_code == 422
        assert len(await published(ready, role.merchant)) == 1


@pytest.mark.parametrize(
    ("keys", "wave"), [(20, 200), pytest.param(1, 400, marks=[pytest.mark.long, pytest.mark.alone])]
)
async def test_parallel_requests_with_one_key_are_published_once(ready: Stack, keys: int, wave: int) -> None:
    async with ingress(environment(ready)) as role:
        await role.well()
        for number in range(keys):
            answers = await asyncio.gather(*(role.post(f"order-{number}") for _ in range(wave)))
            codes = Counter(answer.status_code for answer in answers)
            assert codes == {201: 1, 409: wave - 1}
            [document] = [told(answer) for answer in answers if answer.status_code == 201]
            for answer in answers:
                if answer.headers["content-type"] == "application/json":
                    assert told(answer) == document
                else:
                    assert answer.json()["code"] == "request-in-progress"
                    assert int(answer.headers["retry-after"]) >= 1
        assert len(await published(ready, role.merchant)) == keys


@pytest.mark.long
async def test_two_processes_share_the_keys(ready: Stack) -> None:
    async with ingress(environment(ready)) as one, ingress(environment(ready)) as two:
        two.merchant, two.http.headers["Authorization"] = one.merchant, one.http.headers["Authorization"]
        await asyncio.gather(one.well(), two.well())
        answers = await asyncio.gather(*(role.post(f"order-{n % 20}") for n in range(200) for role in (one, two)))
        assert Counter(answer.status_code for answer in answers) == {201: 20, 409: 380}
        assert len(await published(ready, one.merchant)) == 20


async def test_any_schema_registry_client_can_read_what_was_published(ready: Stack) -> None:
    async with ingress(environment(ready)) as role:
        await role.well()
        await role.post("order-1")
        [command] = await published(ready, role.merchant)
        raw = codec.encode(command)

        def decode() -> dict[str, object]:
            with SchemaRegistryClient({"url": f"http://127.0.0.1:{role.port}/registry"}) as registry:
                context = SerializationContext(topics.COMMANDS, MessageField.VALUE)
                found: dict[str, object] = AvroDeserializer(registry)(raw, context)
                return found

        found = await asyncio.to_thread(decode)
        assert str(found["payment_id"]) == command.payment_id
        assert found["amount_minor"] == 1250


async def test_metrics_count_and_name_no_merchant(ready: Stack) -> None:
    async with ingress(environment(ready)) as role:
        await role.well()
        for key in ("a", "a", "b"):
            await role.post(key)
        await role.post("a", amount="2.00")
        metrics = (await role.http.get("/metrics")).text
        assert "kifiya_ingress_accepted_total 2.0" in metrics
        for code, count in (("201", 2), ("409", 1), ("422", 1)):
            assert f'kifiya_ingress_creates_total{{answer="{code}"}} {count}.0' in metrics
        for name in ("kafka", "redis", "postgres"):
            assert f'kifiya_ingress_present{{name="{name}"}} 1.0' in metrics
            assert f'kifiya_ingress_away_total{{name="{name}"}}' in metrics
        assert "kifiya_ingress_create_seconds_bucket" in metrics
        assert role.merchant not in metrics


async def test_the_logs_hold_nothing_that_was_sent(ready: Stack) -> None:
    async with ingress(environment(ready) | {"ACCESS_LOG": "true", "LOG_LEVEL": "debug"}) as role:
        await role.well()
        await role.post("order-1", description="a secret word", customer_id="secret-customer")
        await role.post("order-2", description="4111 1111 1111 1111")
        await role.http.get("/v1/payments/4111111111111111?x=4111111111111111", headers={"X-Request-Id": "r-7"})

        async def logged() -> bool:
            return any(json.loads(line).get("request_id") == "r-7" for line in role.lines)

        await until(logged, "the last request is logged")
        said = "".join(role.lines)
        assert "secret" not in said
        assert "4111" not in said
        assert role.merchant not in said
        assert all(json.loads(line)["level"] in {"debug", "info"} for line in role.lines)


async def in_hand(role: Ingress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A create whose head and first half have been sent, and what is left of it."""
    raw = json.dumps(role.body()).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", role.port)
    writer.write(
        b"POST /v1/payments HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nidempotency-key: %s\r\n"
        b"authorization: %s\r\n"
        b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n"
        % (uuid.uuid4().hex.encode(), role.http.headers["authorization"].encode(), len(raw))
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"  # so it is in a route's hands
    writer.write(raw[:20])
    return reader, writer, raw[20:]


async def refuses(role: Ingress) -> None:
    """Wait until it takes no new connection."""

    async def check() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", role.port)
        except OSError:
            return True
        writer.close()
        return False

    await until(check, "the listener is closed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_what_is_in_hand_finish_and_exits_0(ready: Stack, number: signal.Signals) -> None:
    async with ingress(environment(ready)) as role:
        await role.well()  # and leaves an idle connection open
        reader, writer, rest = await in_hand(role)
        role.process.send_signal(number)
        await refuses(role)
        writer.write(rest)
        assert (await reader.read()).startswith(b"HTTP/1.1 201 ")
        writer.close()
        async with asyncio.timeout(5):
            assert await role.process.wait() == 0
    assert len(await published(ready, role.merchant)) == 1


async def test_a_client_that_never_ends_does_not_hold_the_exit_up(ready: Stack) -> None:
    async with ingress(environment(ready)) as role:
        await role.well()
        reader, writer, _ = await in_hand(role)
        began = time.monotonic()
        role.process.terminate()
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        async with asyncio.timeout(8):
            assert await role.process.wait() == 0
        assert time.monotonic() - began < 6.5
    assert await published(ready, role.merchant) == []


async def test_it_starts_without_anything_being_there_and_says_so() -> None:
    async with ingress(NOWHERE) as role:
        assert (await role.http.get("/healthz")).status_code == 200
        assert (await role.http.get("/registry/subjects")).status_code == 200
        assert (await role.readiness())["missing"] == ["kafka"]
        for _ in range(5):
            answer, took_s = await role.timed_post()
            assert (answer.status_code, answer.json()["code"]) == (503, "keys-away")
            assert answer.headers["retry-after"] == "1"
            assert took_s < 1
        answer = await role.http.get(f"/v1/payments/{uuid.uuid4()}")
        assert (answer.status_code, answer.json()["code"]) == (503, "keys-away")
        assert role.actions().count("listening") == 1
        assert "secret" not in "".join(role.lines)


async def run(**settings: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ingress", env=os.environ | NOWHERE | settings, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_a_port_in_use_ends_the_start_with_its_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = await run(INGRESS_PORT=str(taken.getsockname()[1]))
    assert code == 1
    assert said.startswith("ingress: INGRESS_HOST, INGRESS_PORT: cannot listen on 127.0.0.1:")
    assert "Traceback" not in said


async def test_a_bad_setting_ends_the_start_in_one_line() -> None:
    code, said = await run(DATABASE_URL="mysql://kifiya:secret@x/y")
    assert code == 1
    assert said.startswith("ingress: DATABASE_URL: ")
    assert said.count("\n") == 1
    assert "secret" not in said


def test_a_command_fits_into_a_record() -> None:
    """The largest body makes a record that the topic takes."""
    limit = next(topic for topic in topics.declare(["x"]) if topic.name == topics.COMMANDS).config["max.message.bytes"]
    assert len(codec.encode(_largest())) < int(limit) // 2


def _largest() -> PaymentCommand:
    fields = {
        "merchant_id": "m" * 64, "amount": "10000000000000.00", "currency": "USD", "payment_method": "p" * 128,
        "customer_id": "🎉" * 128, "description": "🎉" * 500,
        "metadata": {f"{n:02d}" + "k" * 38: "🎉" * 500 for n in range(20)}, "expires_at": "2999-01-01T00:00:00Z",
    }  # fmt: skip
    return commands.create(fields, idempotency_key="k" * 255, lanes=frozenset(), accepted_at_ms=1)
