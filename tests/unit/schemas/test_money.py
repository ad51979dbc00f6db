"""Money: strings at the edge, whole minor units inside, each currency with its own exponent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from schemas import money

CHARGEABLE = sorted(item.code for item in Currency if item.exponent is not None)


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("12.50", "USD", 1250),
        ("12.5", "USD", 1250),
        ("12", "USD", 1200),
        ("0.01", "ETB", 1),
        ("007.10", "USD", 710),
        ("1250", "JPY", 1250),
        ("1", "KRW", 1),
        ("1.234", "KWD", 1234),
        ("1.2", "KWD", 1200),
        ("0.0001", "CLF", 1),
        ("10000000000000.00", "USD", 10**15),
        ("1000000000000000", "JPY", 10**15),
    ],
)
def test_a_decimal_string_becomes_minor_units_of_its_currency(amount: str, currency: str, minor: int) -> None:
    assert money.to_minor(amount, currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency", "field"),
    [
        # more decimals than the currency has, zeros included
        ("1.0", "JPY", "amount"),
        ("12.505", "USD", "amount"),
        ("12.500", "USD", "amount"),
        ("1.2345", "KWD", "amount"),
        # nothing, or less
        ("0", "USD", "amount"),
        ("0.00", "USD", "amount"),
        ("-1", "USD", "amount"),
        ("-0.01", "USD", "amount"),
        ("-0", "USD", "amount"),
        # too much
        ("10000000000000.01", "USD", "amount"),
        ("1000000000000001", "JPY", "amount"),
        ("9" * 18, "KWD", "amount"),
        ("9" * 19, "USD", "amount"),
        ("9" * 65536, "USD", "amount"),
        ("1." + "0" * 65536, "USD", "amount"),
        ("1e400", "USD", "amount"),
        # not plain
        ("1e2", "USD", "amount"),
        ("NaN", "USD", "amount"),
        ("Infinity", "USD", "amount"),
        ("+1", "USD", "amount"),
        (" 1", "USD", "amount"),
        ("1 ", "USD", "amount"),
        ("1\n", "USD", "amount"),
        ("1.", "USD", "amount"),
        (".5", "USD", "amount"),
        (".", "USD", "amount"),
        ("", "USD", "amount"),
        ("1,50", "USD", "amount"),
        ("1_000", "USD", "amount"),
        ("0x10", "USD", "amount"),
        ("1.5.0", "USD", "amount"),
        ("1\x00", "USD", "amount"),
        ("\u0661\u0662", "USD", "amount"),  # Arabic-Indic digits
        ("\uff11", "USD", "amount"),  # full-width
        ("\u00b2", "USD", "amount"),  # superscript
        ("1\u200b2", "USD", "amount"),
        # not a currency
        ("1", "usd", "currency"),
        ("1", "USD ", "currency"),
        ("1", "", "currency"),
        ("1", "ZZZ", "currency"),
        ("1", "\ud800", "currency"),
        # codes that are not for charging: gold, no currency, tests
        ("1", "XAU", "currency"),
        ("1", "XXX", "currency"),
        ("1", "XTS", "currency"),
    ],
)
def test_what_cannot_be_charged_is_refused_and_its_value_not_repeated(amount: str, currency: str, field: str) -> None:
    with pytest.raises(money.MoneyError) as refused:
        money.to_minor(amount, currency)
    assert refused.value.field == field
    if len(amount) > 4:
        assert amount not in refused.value.detail


@given(st.sampled_from(CHARGEABLE), st.integers(1, money.MAX_MINOR))
def test_every_amount_survives_the_way_to_a_string_and_back(currency: str, minor: int) -> None:
    assert money.to_minor(money.to_decimal(minor, currency), currency) == minor


@given(st.text(max_size=40), st.text(max_size=4))
def test_any_text_is_a_whole_amount_or_a_money_error(amount: str, currency: str) -> None:
    for code in (currency, "USD", "JPY", "KWD"):
        try:
            minor = money.to_minor(amount, code)
        except money.MoneyError:
            continue
        assert type(minor) is int
        assert 0 < minor <= money.MAX_MINOR


@pytest.mark.parametrize(("minor", "taken"), [(-1, False), (0, False), (1, True), (10**15, True), (10**15 + 1, False)])
def test_the_bounds_hold_for_minor_units_too(minor: int, taken: bool) -> None:
    if taken:
        assert money.check_minor(minor) == minor
    else:
        with pytest.raises(money.MoneyError):
            money.check_minor(minor)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(1, "USD", "0.01"), (1250, "USD", "12.50"), (1250, "JPY", "1250"), (1, "KWD", "0.001"), (5, "CLF", "0.0005")],
)
def test_minor_units_are_written_with_all_decimals(minor: int, currency: str, text: str) -> None:
    assert money.to_decimal(minor, currency) == text
