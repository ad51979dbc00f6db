"""``kifiya send`` refuses what the gateway would refuse, naming the option and never the value."""

from __future__ import annotations

import pytest

from tests.unit.ops.cli.run import CLOSED, complaint, kifiya

GOOD = {"--amount": "12.50", "--currency": "USD", "--payment-method": "pm_approve"}
CARD = "4111111111111111"


def send(changes: dict[str, str | None], *more: str, **environment: str) -> str:
    given = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    options = [word for pair in given.items() for word in pair]
    return complaint(kifiya("send", *options, *more, KAFKA_BOOTSTRAP=CLOSED, **environment))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--amount": None}, "--amount: is required"),
        ({"--amount": "12.505"}, "--amount: has more decimals than USD allows (2)"),
        ({"--amount": "0"}, "--amount: must be greater than zero"),
        ({"--amount": "1", "--currency": "XYZ"}, "--currency: is not an ISO 4217 currency code that can be charged"),
        ({"--payment-method": None}, "--payment-method: is required"),
        ({"--key": "a b"}, "--key: must be 1 to 255 visible ASCII characters"),
        ({"--merchant": ""}, "--merchant: must be 1 to 64 characters of A-Z a-z 0-9 _ -"),
        ({"--lane": "Fast"}, "--lane: is not a lane of this gateway"),
        ({"--expires-at": "soon"}, "--expires-at: must be an RFC 3339 date and time, such as 2026-01-31T12:00:00Z"),
        ({"--metadata": "order"}, "--metadata: write KEY=VALUE"),
        ({"--metadata": "a b=c"}, "--metadata: keys must be 1 to 40 characters of A-Z a-z 0-9 _ . : -"),
        ({"--payment-id": "x"}, "--payment-id goes with --cancel: a payment's id follows from its merchant and key"),
    ],
)
def test_a_payment_that_cannot_be_taken_is_refused_before_it_is_sent(changes: dict[str, str | None], said: str) -> None:
    assert send(changes) == said


@pytest.mark.parametrize("option", ["--description", "--payment-method", "--key", "--metadata"])
@pytest.mark.parametrize("as_json", [True, False])
def test_a_card_number_is_refused_and_not_repeated(option: str, as_json: bool) -> None:
    said = send({option: f"order={CARD}" if option == "--metadata" else CARD}, *(["--json"] if as_json else []))
    assert "card number" in said
    assert CARD not in said


def test_a_lane_of_another_gateway_is_refused() -> None:
    assert send({"--lane": "slow"}, LANES='{"fast": {}}') == "--lane: is not a lane of this gateway"


def test_metadata_given_twice_is_refused() -> None:
    assert send({"--metadata": "a=1"}, "--metadata", "a=2") == "--metadata: a is given twice"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say what to cancel: --payment-id, or the --key of its payment"),
        (["--key", "k", "--amount", "1"], "--cancel takes --payment-id, or --key with --merchant, and nothing else"),
        (["--payment-id", "123"], "--payment-id: must be a UUID in its canonical form"),
        (["--key", ""], "--key: must be 1 to 255 visible ASCII characters"),
    ],
)
def test_a_cancel_names_one_payment_and_nothing_else(options: list[str], said: str) -> None:
    assert complaint(kifiya("send", "--cancel", *options, KAFKA_BOOTSTRAP=CLOSED)) == said
