"""Validation of commands: one rule book for the HTTP body, JSON records and Avro records.

Pure: raises :class:`InvalidCommand` with the field's name and a sentence that never repeats the value.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from schemas import identity, money, text
from schemas.card_number import holds_card_number, key_holds_card_number
from schemas.records import CommandType, PaymentCommand

MAX_BYTES: Final = 64 * 1024
"""Largest command, as an HTTP body or as a record's value."""
MAX_DEPTH: Final = 16
MAX_METADATA: Final = 20
MAX_TEXT: Final = 500
MAX_INSTANT_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, UTC: later ones cannot be written as a date again."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LONGEST_NAME: Final = 40
_MERCHANT = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_LANE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)

CREATE_FIELDS: Final = frozenset(
    {
        "merchant_id",
        "amount",
        "currency",
        "payment_method",
        "customer_id",
        "description",
        "metadata",
        "lane",
        "expires_at",
    }
)
_CANCEL_FIELDS: Final = frozenset({"payment_id", "merchant_id", "idempotency_key"})


class InvalidCommand(ValueError):
    """A command that cannot be taken. ``field`` is a path such as ``metadata.order``; ``code`` is machine-readable."""

    def __init__(self, field: str, detail: str, code: str = "invalid-field") -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail
        self.code = code


def check_key(key: Any) -> str:
    """Pass a well-formed idempotency key on. Raises InvalidCommand."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidCommand("idempotency_key", "must be 1 to 255 visible ASCII characters")
    if key_holds_card_number(key):
        detail = "seems to be a card number: use a UUID, or put a 0 before a number of your own"
        raise InvalidCommand("idempotency_key", detail, "card-number")
    return key


def check_merchant(merchant: Any) -> str:
    """Pass a well-formed merchant id on. Raises InvalidCommand."""
    if not isinstance(merchant, str) or not _MERCHANT.fullmatch(merchant):
        raise InvalidCommand("merchant_id", "must be 1 to 64 characters of A-Z a-z 0-9 _ -")
    return _no_card("merchant_id", merchant)


def check_payment_id(value: Any) -> str:
    """Pass a canonical payment id on. Raises InvalidCommand."""
    try:
        if isinstance(value, str) and str(uuid.UUID(value)) == value:
            return _no_card("payment_id", value)
    except InvalidCommand:
        raise
    except ValueError:
        pass
    raise InvalidCommand("payment_id", "must be a UUID in its canonical form")


def create(
    fields: Mapping[str, Any], *, idempotency_key: Any, lanes: frozenset[str], accepted_at_ms: int
) -> PaymentCommand:
    """The create command in a JSON object's fields, all but ``type`` and ``idempotency_key``. Raises InvalidCommand."""
    unknown = sorted(str(name) for name in fields.keys() - CREATE_FIELDS)
    if unknown:
        name = unknown[0][:64]
        if not _TOKEN.fullmatch(name) or holds_card_number(name):
            name = "(unnamed)"
        raise InvalidCommand(name, "is not a field of a payment", "unknown-field")
    for name in ("merchant_id", "amount", "currency", "payment_method"):
        if fields.get(name) is None:
            raise InvalidCommand(name, "is required", "missing-field")
    amount, currency = fields["amount"], fields["currency"]
    if not isinstance(currency, str):
        raise InvalidCommand("currency", "must be a string")
    if not isinstance(amount, str):
        raise InvalidCommand("amount", "must be a decimal string such as '12.50', not a number")
    _no_card("amount", amount)
    try:
        amount_minor = money.to_minor(amount, currency)
    except money.MoneyError as error:
        raise InvalidCommand(error.field, error.detail) from error
    _no_card("amount", str(amount_minor))
    metadata, expires_at_ms = _metadata(fields.get("metadata")), instant("expires_at", fields.get("expires_at"))
    _moment("accepted_at", accepted_at_ms)
    merchant, key = check_merchant(fields["merchant_id"]), check_key(idempotency_key)
    _moment("expires_at", expires_at_ms)
    command = PaymentCommand(
        type=CommandType.CREATE,
        payment_id=identity.payment_id(merchant, key),
        merchant_id=merchant,
        idempotency_key=key,
        amount_minor=amount_minor,
        currency=currency,
        payment_method=fields["payment_method"],
        customer_id=fields.get("customer_id"),
        description=fields.get("description"),
        metadata=metadata,
        lane=fields.get("lane"),
        expires_at_ms=expires_at_ms,
        accepted_at_ms=accepted_at_ms,
    )
    _plain(command, lanes)
    return command


def from_json(fields: Any, *, lanes: frozenset[str], accepted_at_ms: int) -> PaymentCommand:
    """The command in a JSON record: the HTTP body's fields, ``type`` and ``idempotency_key``. Raises InvalidCommand."""
    if not isinstance(fields, Mapping):
        raise InvalidCommand("(body)", "must be a JSON object")
    kind = fields.get("type")
    if kind == CommandType.CREATE.value:
        rest = {name: value for name, value in fields.items() if name not in ("type", "idempotency_key")}
        return create(rest, idempotency_key=fields.get("idempotency_key"), lanes=lanes, accepted_at_ms=accepted_at_ms)
    if kind == CommandType.CANCEL.value:
        unknown = fields.keys() - _CANCEL_FIELDS - {"type"}
        if unknown:
            raise InvalidCommand("(body)", "a cancel only names its payment", "unknown-field")
        return check(
            PaymentCommand(
                type=CommandType.CANCEL,
                payment_id=fields.get("payment_id"),
                merchant_id=fields.get("merchant_id"),
                idempotency_key=fields.get("idempotency_key"),
                accepted_at_ms=accepted_at_ms,
            ),
            lanes=lanes,
        )
    raise InvalidCommand("type", "must be 'create' or 'cancel'")


def check(command: PaymentCommand, *, lanes: frozenset[str]) -> PaymentCommand:
    """A command, whatever it came in, with its ``payment_id`` set as the gateway derives it. Raises InvalidCommand.

    A create's own ``payment_id`` is never believed. An empty set of lanes stands for: any well-formed lane.
    """
    _moment("accepted_at", command.accepted_at_ms)
    if command.type is CommandType.CANCEL:
        return _check_cancel(command)
    merchant, key = check_merchant(command.merchant_id), check_key(command.idempotency_key)
    _money(command.amount_minor, command.currency)
    _moment("expires_at", command.expires_at_ms)
    _plain(command, lanes)
    _metadata(command.metadata)
    return _with_id(command, identity.payment_id(merchant, key))


def _plain(command: PaymentCommand, lanes: frozenset[str]) -> None:
    """Check a create's own fields but for its metadata, money and times."""
    if not isinstance(command.payment_method, str) or not _TOKEN.fullmatch(command.payment_method):
        raise InvalidCommand("payment_method", "must be a token of 1 to 128 characters of A-Z a-z 0-9 _ . : -")
    _no_card("payment_method", command.payment_method)
    _text("customer_id", command.customer_id, 128)
    _text("description", command.description, MAX_TEXT)
    lane = command.lane
    if lane is None:
        return
    if not isinstance(lane, str) or not _LANE.fullmatch(lane) or (lanes and lane not in lanes):
        raise InvalidCommand("lane", "is not a lane of this gateway")
    _no_card("lane", lane)


def _money(amount_minor: Any, currency: Any) -> None:
    for name, value in (("amount", amount_minor), ("currency", currency)):
        if value is None:
            raise InvalidCommand(name, "is required", "missing-field")
    if not isinstance(amount_minor, int) or isinstance(amount_minor, bool):
        raise InvalidCommand("amount", "must be a whole number of minor units")
    if not isinstance(currency, str):
        raise InvalidCommand("currency", "must be a string")
    try:
        money.exponent(currency)
        money.check_minor(amount_minor)
    except money.MoneyError as error:
        raise InvalidCommand(error.field, error.detail) from error
    _no_card("amount", str(amount_minor))


def _moment(field: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidCommand(field, "must be a whole number of milliseconds")
    if not 0 <= value <= MAX_INSTANT_MS:
        raise InvalidCommand(field, "must lie between the years 1970 and 9999, in UTC")


def _check_cancel(command: PaymentCommand) -> PaymentCommand:
    """What names the payment, checked; whatever else a direct producer has filled in is dropped."""
    payment_id, merchant, key = command.payment_id, command.merchant_id, command.idempotency_key
    if payment_id is None and (merchant is None or key is None):
        raise InvalidCommand("payment_id", "or merchant_id and idempotency_key is required", "missing-field")
    merchant = None if merchant is None else check_merchant(merchant)
    key = None if key is None else check_key(key)
    return PaymentCommand(
        type=CommandType.CANCEL,
        payment_id=identity.payment_id(merchant or "", key or "")
        if payment_id is None
        else check_payment_id(payment_id),
        merchant_id=merchant,
        idempotency_key=key,
        accepted_at_ms=command.accepted_at_ms,
    )


def fingerprint(command: PaymentCommand, *, stored: str | None = None) -> str:
    """The fingerprint of a checked create; its texts count in their normal form.

    ``stored`` is the fingerprint it is held against: payments accepted before texts were normalised have one of their
    texts as sent. Where that is the one of this create, it is returned, so that their repeats are repeats still.
    """
    normal = normalised(command)
    found = _fingerprint(normal)
    if normal is command or stored is None or stored == found:
        return found
    as_sent = _fingerprint(command)
    return as_sent if as_sent == stored else found


def normalised(command: PaymentCommand) -> PaymentCommand:
    """A checked create with its texts in their normal form; itself where they are."""
    customer_id, description, metadata = command.customer_id, command.description, command.metadata
    if "".join((customer_id or "", description or "", *metadata.values())).isascii():
        return command
    return replace(
        command,
        customer_id=customer_id and text.normal(customer_id),
        description=description and text.normal(description),
        metadata={key: text.normal(value) for key, value in metadata.items()},
    )


def _fingerprint(command: PaymentCommand) -> str:
    return identity.fingerprint(
        amount_minor=command.amount_minor or 0,
        currency=command.currency or "",
        payment_method=command.payment_method or "",
        customer_id=command.customer_id,
        description=command.description,
        metadata=command.metadata,
        lane=command.lane,
        expires_at_ms=command.expires_at_ms,
    )


def _with_id(command: PaymentCommand, payment_id: str) -> PaymentCommand:
    if command.payment_id == payment_id:
        return command
    values = {name: getattr(command, name) for name in PaymentCommand.__slots__}
    return PaymentCommand(**{**values, "payment_id": payment_id})


def _text(field: str, value: Any, longest: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise InvalidCommand(field, f"must be a string of 1 to {longest} characters")
    if value.isascii() and value.isprintable():  # as nearly all are: nothing to be found, and its own normal form
        return _no_card(field, value)
    if text.unsafe(value):
        raise InvalidCommand(field, "must not hold control, text-direction or invisible characters")
    if len(text.normal(value)) > longest:
        raise InvalidCommand(field, f"must be a string of 1 to {longest} characters in Unicode's form NFC")
    return _no_card(field, value)


def _no_card(field: str, value: str) -> str:
    if holds_card_number(value):
        raise InvalidCommand(field, "seems to hold a card number; send a payment method token instead", "card-number")
    return value


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidCommand("metadata", "must be an object of strings")
    if len(value) > MAX_METADATA:
        raise InvalidCommand("metadata", f"must have at most {MAX_METADATA} keys")
    for key, item in value.items():
        if not isinstance(key, str) or not _TOKEN.fullmatch(key) or len(key) > _LONGEST_NAME:
            raise InvalidCommand("metadata", "keys must be 1 to 40 characters of A-Z a-z 0-9 _ . : -")
        _no_card("metadata", key)
        if item is None:
            raise InvalidCommand(f"metadata.{key}", "must be a string")
        _text(f"metadata.{key}", item, MAX_TEXT)
    return dict(value)


def instant(field: str, value: Any) -> int | None:
    """Epoch milliseconds of an RFC 3339 date and time. Raises InvalidCommand."""
    if value is None:
        return None
    try:
        if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
            raise ValueError  # noqa: TRY301 - one sentence for all
        moment = dt.datetime.fromisoformat(value.upper())
    except ValueError:
        raise InvalidCommand(field, "must be an RFC 3339 date and time, such as 2026-01-31T12:00:00Z") from None
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)
