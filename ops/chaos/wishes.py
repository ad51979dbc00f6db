"""What the clients of a run ask for: creates, repeats, contradictions, cancels and nonsense, drawn by a seed. Pure."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ops.chaos.case import Case
from schemas import identity, money

REMEMBERED: Final = 500
"""Payments that may be repeated, contradicted or cancelled: the newest ones."""
CURRENCIES: Final = ("USD", "USD", "EUR", "JPY", "KWD")
CARDS: Final = ("4111111111111111", "5555555555554444", "378282246310005", "6011 1111 1111 1117")
"""Numbers that schemes give out for tests. They are planted, and must be found nowhere afterwards."""
GARBAGE: Final = (b"", b"\x00\x01", b"{", b"[]", b'{"type": "refund"}', b"\xff\xfe\xfd" * 20, b'{"type": "create"}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One request, whichever way it takes. ``raw``: bytes that are no command at all, for Kafka only."""

    merchant_id: str
    key: str
    amount_minor: int = 0
    currency: str = ""
    fields: str = "{}"
    cancel: bool = False
    bad: bool = False
    raw: bytes | None = None

    @property
    def payment_id(self) -> str:
        """The payment that it is about."""
        return identity.payment_id(self.merchant_id, self.key)

    @property
    def body(self) -> str:
        """The body of an HTTP create, and what tells two requests with one key apart."""
        return self.fields

    def record(self) -> bytes:
        """The value of a Kafka record."""
        if self.raw is not None:
            return self.raw
        if self.cancel:
            return json.dumps({"type": "cancel", "payment_id": self.payment_id}).encode()
        return json.dumps({"type": "create", "idempotency_key": self.key, **json.loads(self.fields)}).encode()

    def said(self) -> dict[str, Any]:
        """What the history notes of it."""
        return {
            "payment_id": self.payment_id, "merchant_id": self.merchant_id, "key": self.key, "body": self.body,
            "amount_minor": self.amount_minor, "currency": self.currency, "cancel": self.cancel, "bad": self.bad,
        }  # fmt: skip


class Wishes:
    """One client's requests, one after another; the same for the same case, seed and client."""

    def __init__(self, case: Case, client: str, merchants: Sequence[str]) -> None:
        self._chance = random.Random(f"{case.seed}-{client}")  # noqa: S311 - a seed that can be had again
        self._workload = case.workload
        self._methods = list(case.workload.methods)
        self._weights = list(case.workload.methods.values())
        self._lanes = list(case.lanes)
        self._shares = [lane.limit / lane.window_ms for lane in case.lanes.values()]
        self._merchants = merchants
        self._name = f"{case.seed}-{client}"
        self._past: deque[Wish] = deque(maxlen=REMEMBERED)
        self._count = 0

    def fresh(self) -> Wish:
        """A payment that nobody has asked for before; lanes are chosen by what they allow."""
        self._count += 1
        chance = self._chance
        currency = chance.choice(CURRENCIES)
        amount = chance.randint(1, 99_999)
        merchant = chance.choice(self._merchants)
        fields = {
            "merchant_id": merchant, "amount": money.to_decimal(amount, currency), "currency": currency,
            "payment_method": chance.choices(self._methods, self._weights)[0],
            "lane": chance.choices(self._lanes, self._shares)[0], "metadata": {"order": str(self._count)},
        }  # fmt: skip
        found = Wish(
            merchant_id=merchant, key=f"{self._name}-{self._count}", amount_minor=amount, currency=currency,
            fields=json.dumps(fields),
        )  # fmt: skip
        self._past.append(found)
        return found

    def next(self, *, raw: bool) -> Wish:
        """The next request. ``raw``: it may be no command at all."""
        chance, load = self._chance, self._workload
        drawn = chance.random()
        for share, draw in (
            (load.repeats, self._again), (load.conflicts, self._against), (load.cancels, self._cancelled),
        ):  # fmt: skip
            if self._past and drawn < share:
                return draw()
            drawn -= share
        return self._bad(raw=raw) if drawn < load.bad else self.fresh()

    def _again(self) -> Wish:
        return self._chance.choice(self._past)

    def _against(self) -> Wish:
        """An old key with another amount."""
        old = self._again()
        amount = old.amount_minor + self._chance.randint(1, 1000)
        fields = json.loads(old.fields) | {"amount": money.to_decimal(amount, old.currency)}
        return replace(old, amount_minor=amount, fields=json.dumps(fields))

    def _cancelled(self) -> Wish:
        """One of the newest, which may be waiting still."""
        newest = list(self._past)[-20:]
        return replace(self._chance.choice(newest), cancel=True)

    def _bad(self, *, raw: bool) -> Wish:
        """No good: a field that is wrong, a card number, or bytes that are no command."""
        chance = self._chance
        self._count += 1
        merchant, key = chance.choice(self._merchants), f"{self._name}-bad-{self._count}"
        fields: dict[str, Any] = {
            "merchant_id": merchant, "amount": "1.00", "currency": "USD", "payment_method": "pm_approve"
        }  # fmt: skip
        if raw and chance.random() < 0.5:  # noqa: PLR2004 - half of them
            return Wish(merchant_id=merchant, key=key, bad=True, raw=chance.choice(GARBAGE))
        fields |= chance.choice(
            (
                {"amount": "-1.00"}, {"amount": "1.005"}, {"currency": "XXX"}, {"lane": "no-such-lane"},
                {"colour": "red"},
                {"description": f"card {chance.choice(CARDS)}"}, {"metadata": {"card": chance.choice(CARDS)}},
            )
        )  # fmt: skip
        return Wish(merchant_id=merchant, key=key, bad=True, fields=json.dumps(fields))
