"""What every request meets: ids, headers, methods, addresses, counts, and what a defect tells."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from ops.telemetry import configure_logging
from tests.unit.ingress.fakes import API_KEY, AUTHORIZED, BODY, ID, KEY, World, post, problem


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("path", ["/healthz", "/v1/payments/x", "/nowhere", "/openapi.json", "/docs", "/metrics"])
async def test_every_answer_has_an_id_and_safe_headers(path: str) -> None:
    async with World().client() as client:
        answer = await client.get(path)
    assert len(answer.headers["x-request-id"]) == 16
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "//" not in answer.headers["content-security-policy"]


async def test_the_docs_need_nothing_from_elsewhere() -> None:
    async with World().client() as client:
        page = (await client.get("/docs")).text
        wanted = re.findall(r"""(?:src|href)="([^"]+)""", page)
        assert len(wanted) == 3
        for path in wanted:
            assert path.startswith("/docs/")
            assert (await client.get(path)).status_code == 200
        for path in ("/docs/files/nothing.js", "/docs/files/../../problem.py", "/docs/files/%2e%2e/__init__.py"):
            problem(await client.get(path), 404, "not-found")
    assert "//" not in page.replace("<!DOCTYPE html>", "")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (["abc-1.2:3/4+5=6_7"], True), (["x" * 64], True), (["x" * 65], False), ([""], False), (["a b"], False),
        ([b"\xc3\xa9"], False), (["a", "a"], False), (["<script>"], False), (["a\tb"], False),
        (["4111111111111111"], False), (["order-4111-1111-1111-1111"], False),
    ],
)  # fmt: skip
async def test_a_request_id_is_kept_only_where_it_is_one_safe_word(sent: list[Any], kept: bool) -> None:
    async with World().client() as client:
        answer = await client.get("/healthz", headers=[("X-Request-Id", value) for value in sent])
    assert (answer.headers["x-request-id"] == sent[0]) == kept
    assert len(answer.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not-found"), ("GET", "/v1", 404, "not-found"), ("GET", "/v1/payments/", 404, "not-found"),
        ("POST", "/v1/payments/", 404, "not-found"), ("GET", f"/v1/payments/{ID}/", 404, "not-found"),
        ("GET", f"/v1/payments/{ID}%2Fx", 404, "not-found"), ("GET", "//v1/payments", 404, "not-found"),
        ("PUT", "/v1/payments", 405, "method-not-allowed"), ("GET", "/v1/payments/batch", 405, "method-not-allowed"),
        ("PUT", f"/v1/payments/{ID}", 405, "method-not-allowed"),
        ("DELETE", f"/v1/payments/{ID}", 405, "method-not-allowed"),
        ("OPTIONS", "/v1/payments", 405, "method-not-allowed"), ("PATCH", "/healthz", 405, "method-not-allowed"),
        ("POST", "/metrics", 405, "method-not-allowed"), ("TRACE", "/healthz", 405, "method-not-allowed"),
        ("POST", "/registry/subjects/x/versions", 405, "method-not-allowed"),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_a_problem(method: str, path: str, status: int, code: str) -> None:
    async with World().client() as client:
        answer = await client.request(method, path, headers={"Host": "evil.example"})
    problem(answer, status, code)
    assert ("allow" in answer.headers) == (status == 405)
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/payments", "GET, HEAD, POST"), (f"/v1/payments/{ID}", "GET, HEAD"), ("/v1/payments/batch", "POST"),
     (f"/v1/payments/{ID}/cancel", "POST"), ("/registry/subjects/x/versions/1", "GET, HEAD"), ("/docs", "GET")],
)  # fmt: skip
async def test_an_address_says_all_that_it_takes(path: str, allowed: str) -> None:
    async with World().client() as client:
        assert (await client.put(path)).headers["allow"] == allowed


async def test_head_is_answered_like_get() -> None:
    world = World()
    async with world.client() as client:
        await post(client)
        for path in (f"/v1/payments/{ID}", "/healthz", "/readyz", "/metrics"):
            answer = await client.head(path)
            assert answer.status_code == 200
            assert int(answer.headers["content-length"]) > 0


async def test_a_requests_trace_goes_with_its_commands_and_its_log_lines(capfd: pytest.CaptureFixture[str]) -> None:
    world = World()
    context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {**AUTHORIZED, "traceparent": context, "tracestate": "vendor=4111111111111111"}
    line = json.dumps({**BODY, "idempotency_key": "order-2"})
    kept = list(logging.getLogger().handlers), logging.getLogger().level
    configure_logging("ingress")
    try:
        transport = httpx2.ASGITransport(world.app(access_log=True))
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            assert (await post(client)).status_code == 201
            kind = {"Content-Type": "application/x-ndjson"}
            assert (await client.post("/v1/payments/batch", content=line, headers=kind)).status_code == 200
            assert (await client.post(f"/v1/payments/{ID}/cancel")).status_code == 202
            del client.headers["traceparent"]
            assert (await post(client, "order-3")).status_code == 201
    finally:
        logging.getLogger().handlers[:], level = kept
        logging.getLogger().setLevel(level)
    assert world.kafka.headers == [{"traceparent": context.encode()}] * 3 + [{}]
    said = [json.loads(each) for each in capfd.readouterr().err.splitlines() if '"request"' in each]
    assert [each.get("traceparent", "none") for each in said] == [context] * 3 + ["none"]


@pytest.mark.parametrize("routed", [False, True])
async def test_a_defect_tells_strangers_nothing_and_logs_no_message(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], routed: bool
) -> None:
    """Both where the edge serves and where the router does; the client here raises what reaches the server."""
    world = World()

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("4111111111111111")

    monkeypatch.setattr(world.keys, "claim", broken)
    monkeypatch.setattr(world.payments, "find", broken)
    kept = list(logging.getLogger().handlers), logging.getLogger().level
    configure_logging("ingress")
    try:
        async with world.client() as client:
            answer = await client.get(f"/v1/payments/{ID}") if routed else await post(client)
        problem(answer, 500, "internal-error")
    finally:
        logging.getLogger().handlers[:], level = kept
        logging.getLogger().setLevel(level)
    said = capfd.readouterr().err
    [line] = [json.loads(line) for line in said.splitlines() if "internal-error" in line]
    assert line["error"].startswith("ZeroDivisionError at ")
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["path"] == ("/v1/payments/{payment_id}" if routed else "/v1/payments")
    assert "4111" not in said + answer.text
    assert "Traceback" not in said


async def test_a_client_that_leaves_mid_body_is_no_defect() -> None:
    world = World()
    before = count("kifiya_ingress_answers_total", route="/v1/payments", code="499")
    came = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(came)

    async def send(message: Any) -> None:
        sent.append(message)

    await world.app()(scope("POST", "/v1/payments"), receive, send)
    assert sent == []
    assert count("kifiya_ingress_answers_total", route="/v1/payments", code="499") == before + 1


async def test_a_request_cut_off_by_the_end_of_the_process_is_told_to_come_again() -> None:
    world = World()
    world.kafka.gate = asyncio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asking = asyncio.create_task(world.app()(scope("POST", "/v1/payments"), receive, send))
    while not world.keys.entries:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    asking.cancel()
    await asking
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["code"] == "stopping"


def scope(method: str, path: str) -> dict[str, Any]:
    headers = [
        (b"content-type", b"application/json"),
        (b"idempotency-key", KEY.encode()),
        (b"authorization", f"Bearer {API_KEY}".encode()),
    ]
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("gateway", 80),
    }  # fmt: skip


async def test_answers_are_counted_by_route_and_never_by_what_a_merchant_sent() -> None:
    world = World()
    created = count("kifiya_ingress_creates_total", answer="201")
    accepted = count("kifiya_ingress_accepted_total")
    taken = count("kifiya_ingress_create_seconds_count")
    missed = count("kifiya_ingress_answers_total", route="/v1/payments/{payment_id}", code="404")
    async with world.client() as client:
        await post(client, "secret-key", customer_id="secretcustomer")
        await client.get("/v1/payments/secret-id")
        await client.get("/secret-path")
        metrics = (await client.get("/metrics")).text
    assert count("kifiya_ingress_creates_total", answer="201") == created + 1
    assert count("kifiya_ingress_accepted_total") == accepted + 1
    assert count("kifiya_ingress_create_seconds_count") == taken + 1
    assert count("kifiya_ingress_answers_total", route="/v1/payments/{payment_id}", code="404") == missed + 1
    assert 'kifiya_ingress_answers_total{code="404",route="none"}' in metrics
    assert "secret" not in metrics


async def test_the_access_log_is_one_line_without_the_clients_text(capfd: pytest.CaptureFixture[str]) -> None:
    kept = list(logging.getLogger().handlers), logging.getLogger().level
    configure_logging("ingress")
    try:
        transport = httpx2.ASGITransport(World().app(access_log=True))
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTHORIZED) as client:
            await client.get("/v1/payments/4111111111111111?card=4111111111111111", headers={"X-Request-Id": "r-1"})
    finally:
        logging.getLogger().handlers[:], level = kept
        logging.getLogger().setLevel(level)
    said = capfd.readouterr().err
    [line] = [json.loads(line) for line in said.splitlines() if '"request"' in line]
    assert (line["path"], line["status"], line["request_id"]) == ("/v1/payments/{payment_id}", 404, "r-1")
    assert line["duration_ms"] >= 0
    assert "4111" not in said
