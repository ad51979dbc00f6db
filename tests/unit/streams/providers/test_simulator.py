"""The translation is total: every status code, every body, every error has exactly one outcome."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
import random
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.chaos.proxy import Mode, Proxy
from schemas.lanes import Lane
from schemas.records import PaymentTask, TaskKind
from streams import providers
from streams.providers import simulator
from streams.providers.port import OutcomeKind

TASK = PaymentTask(
    kind=TaskKind.CREATE,
    payment_id="107c45ba-7681-56a0-b5fb-19153d5aa05e",
    merchant_id="shop",
    idempotency_key="order-1",
    fingerprint="f1",
    amount_minor=1,
    currency="USD",
    payment_method="pm_approve",
    lane="simulator",
    accepted_at_ms=0,
)
GOOD = {"id": "ch_1", "status": "approved", "reference": TASK.payment_id, "amount_minor": 1, "currency": "USD"}
PAN = "4111111111111111"


def body(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (200, OutcomeKind.APPROVED, None),
        (201, OutcomeKind.APPROVED, None),
        (202, OutcomeKind.UNKNOWN, "http-202"),
        (301, OutcomeKind.UNKNOWN, "http-301"),
        (307, OutcomeKind.UNKNOWN, "http-307"),
        (400, OutcomeKind.REJECTED, "http-400"),
        (404, OutcomeKind.REJECTED, "http-404"),
        (408, OutcomeKind.UNKNOWN, "http-408"),
        (409, OutcomeKind.RETRYABLE, "key-in-use"),
        (422, OutcomeKind.REJECTED, "http-422"),
        (429, OutcomeKind.RETRYABLE, "rate-limited"),
        (500, OutcomeKind.UNKNOWN, "http-500"),
        (502, OutcomeKind.UNKNOWN, "http-502"),
        (503, OutcomeKind.RETRYABLE, "unavailable"),
        (504, OutcomeKind.UNKNOWN, "http-504"),
    ],
)
def test_the_status_code_of_a_charge(status: int, kind: OutcomeKind, reason: str | None) -> None:
    found = simulator.answer(status, {}, body(), TASK)
    assert (found.kind, found.reason, found.sent) == (kind, reason, True)


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (404, b'{"error": "no charge under this key"}', OutcomeKind.ABSENT),
        (404, b"<html>nginx</html>", OutcomeKind.UNKNOWN),
        (404, b"{}", OutcomeKind.UNKNOWN),
        (400, b'{"error": "bad"}', OutcomeKind.UNKNOWN),
        (401, b"", OutcomeKind.UNKNOWN),
        (503, b"", OutcomeKind.RETRYABLE),
        (200, body(), OutcomeKind.APPROVED),
    ],
)
def test_a_status_call_that_fails_says_nothing_about_the_charge(status: int, said: bytes, kind: OutcomeKind) -> None:
    """Only the provider's own word that there is none leads to a second charge."""
    assert simulator.answer(status, {}, said, TASK, asked=True).kind is kind


@given(status=st.integers(100, 599), said=st.binary(max_size=200), asked=st.booleans(), wait=st.none() | st.text())
def test_every_status_code_has_an_outcome(status: int, said: bytes, asked: bool, wait: str | None) -> None:
    found = simulator.answer(status, {} if wait is None else {"retry-after": wait}, said, TASK, asked=asked)
    if status not in {200, 201}:
        assert found.kind not in {OutcomeKind.APPROVED, OutcomeKind.DECLINED}
    if found.kind in {OutcomeKind.REJECTED, OutcomeKind.RETRYABLE}:
        assert 400 <= status < 500 or status == 503
    assert found.kind is not OutcomeKind.ABSENT or (asked and status == 404)


@pytest.mark.parametrize(
    ("said", "kind", "reason", "charge_id"),
    [
        (body(), OutcomeKind.APPROVED, None, "ch_1"),
        (body(reason="x"), OutcomeKind.APPROVED, None, "ch_1"),
        (body(status="declined", reason="insufficient_funds"), OutcomeKind.DECLINED, "insufficient_funds", "ch_1"),
        (body(status="declined"), OutcomeKind.DECLINED, None, "ch_1"),
        (body(status="declined", reason=PAN), OutcomeKind.DECLINED, None, "ch_1"),
        (body(status="declined", reason="a\nb"), OutcomeKind.DECLINED, None, "ch_1"),
        (body(status="declined", reason="a" * 65), OutcomeKind.DECLINED, None, "ch_1"),
        (body(status="declined", reason=["a"]), OutcomeKind.DECLINED, None, "ch_1"),
        (body(status="pending"), OutcomeKind.UNKNOWN, "nonsense", None),
        (body(status=["approved"]), OutcomeKind.UNKNOWN, "nonsense", None),
        (body(status={"approved": 1}), OutcomeKind.UNKNOWN, "nonsense", None),
        (body(status=None), OutcomeKind.UNKNOWN, "nonsense", None),
        (body(id=""), OutcomeKind.UNKNOWN, "nonsense", None),
        (body(id=7), OutcomeKind.UNKNOWN, "nonsense", None),
        (body(id="c" * 129), OutcomeKind.UNKNOWN, "nonsense", None),
        (body(id="\ud800"), OutcomeKind.UNKNOWN, "nonsense", None),
        (body(id="a b"), OutcomeKind.UNKNOWN, "nonsense", None),
        (body(amount_minor=2), OutcomeKind.UNKNOWN, "provider-mismatch", None),
        (body(amount_minor=True), OutcomeKind.UNKNOWN, "provider-mismatch", None),
        (body(amount_minor=1.0), OutcomeKind.UNKNOWN, "provider-mismatch", None),
        (body(amount_minor="1"), OutcomeKind.UNKNOWN, "provider-mismatch", None),
        (body(currency="EUR"), OutcomeKind.UNKNOWN, "provider-mismatch", None),
        (body(reference="another"), OutcomeKind.UNKNOWN, "provider-mismatch", None),
        (b"", OutcomeKind.UNKNOWN, "nonsense", None),
        (b"null", OutcomeKind.UNKNOWN, "nonsense", None),
        (b"[]", OutcomeKind.UNKNOWN, "nonsense", None),
        (b"<html>\xff", OutcomeKind.UNKNOWN, "nonsense", None),
        (b'{"id":' * 5000, OutcomeKind.UNKNOWN, "nonsense", None),
        (b'{"id": ' + b"9" * 5000 + b"}", OutcomeKind.UNKNOWN, "nonsense", None),
    ],
)
def test_an_answer_is_believed_only_if_it_is_about_this_payment(
    said: bytes, kind: OutcomeKind, reason: str | None, charge_id: str | None
) -> None:
    found = simulator.answer(201, {}, said, TASK)
    assert (found.kind, found.reason, found.provider_charge_id) == (kind, reason, charge_id)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json_values = st.recursive(scalars, lambda inner: st.lists(inner) | inner, max_leaves=4)


@given(st.dictionaries(st.sampled_from([*GOOD, "reason"]), json_values))
def test_no_answer_however_strange_is_an_error(changes: dict[str, Any]) -> None:
    found = simulator.answer(200, {}, json.dumps(GOOD | changes).encode(), TASK)
    if found.kind is OutcomeKind.APPROVED:
        assert {name: (GOOD | changes)[name] for name in ("status", "reference", "amount_minor", "currency")} == {
            name: GOOD[name] for name in ("status", "reference", "amount_minor", "currency")
        }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "timeout"),
        (httpx2.ReadTimeout("x"), "timeout"),
        (httpx2.ReadError("x"), "reset"),
        (httpx2.RemoteProtocolError("x"), "reset"),
        (OSError(), "reset"),
        (simulator._AnswerTooLarge(), "answer-too-large"),
    ],
)
def test_no_answer_is_unknown_once_a_byte_was_written_and_nothing_before(error: Exception, reason: str) -> None:
    after, before = simulator.failure(error, sent=True), simulator.failure(error, sent=False)
    assert (after.kind, after.reason, after.sent) == (OutcomeKind.UNKNOWN, reason, True)
    assert (before.kind, before.reason, before.sent) == (OutcomeKind.RETRYABLE, "not-connected", False)


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("1", 1), ("120", 120), ("99999999999999999999", 3600)])
def test_retry_after_is_a_number_and_an_hour_at_most(value: str, seconds: float) -> None:
    assert simulator.retry_after(value) == seconds


@pytest.mark.parametrize(
    ("ahead", "least", "most"),
    [
        (dt.timedelta(seconds=60), 30, 60),
        (-dt.timedelta(days=1), 0, 0),
        (dt.timedelta(days=1), 3600, 3600),
    ],
)
def test_retry_after_is_a_date_too_and_an_hour_at_most(ahead: dt.timedelta, least: float, most: float) -> None:
    found = simulator.retry_after(email.utils.format_datetime(dt.datetime.now(dt.UTC) + ahead))
    assert found is not None
    assert least <= found <= most


@pytest.mark.parametrize("value", [None, "", "-1", "1.5", "soon", "١٢", "Wed, 99 Foo 2026 00:00:00 GMT", "1 2"])
def test_a_retry_after_that_is_neither_is_none(value: str | None) -> None:
    assert simulator.retry_after(value) is None


@given(st.text(max_size=60))
def test_no_retry_after_is_an_error(value: str) -> None:
    found = simulator.retry_after(value)
    assert found is None or 0 <= found <= 3600


def test_a_lane_without_an_address_or_with_a_strange_provider_fails_at_start() -> None:
    with pytest.raises(ValueError, match="SIMULATOR_URL"):
        providers.open_provider(Lane(name="x"))
    with pytest.raises(ValueError, match="'stripy' is not one of"):
        providers.open_provider(Lane(name="x", provider="stripy", url="http://127.0.0.1:1"))


async def test_a_request_that_has_timed_out_is_not_sent_later() -> None:
    """A network that stalls would deliver it beside the calls that follow: more at once than the provider allows."""
    heard: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                heard.append(head.split()[1].decode())
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def written() -> None:
        pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = Proxy("127.0.0.1", server.sockets[0].getsockname()[1], chance=random.Random(1))
    async with server, proxy.listening():
        lane = Lane(name="simulator", url=f"http://127.0.0.1:{proxy.port}", call_timeout_ms=300)
        async with simulator.SimulatorProvider(lane) as provider:
            await provider.status(TASK, idempotency_key="before", before_write=written)
            proxy.become(Mode.STALL)
            stalled = [
                await provider.status(TASK, idempotency_key=key, before_write=written)
                for key in ("on-the-open-connection", "on-a-new-one")
            ]
            await asyncio.sleep(0.05)  # the proxy hears of the last end
            proxy.become(Mode.OPEN)
            await provider.status(TASK, idempotency_key="after", before_write=written)
    assert [(found.kind, found.sent) for found in stalled] == [(OutcomeKind.UNKNOWN, True)] * 2
    assert heard == ["/v1/charges/before", "/v1/charges/after"]
