"""What a merchant sees of a payment: one shape, whether Redis or PostgreSQL knows it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from schemas import command as commands
from schemas import money
from schemas.records import PaymentCommand, PaymentResult

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@lru_cache(maxsize=256)
def _second(epoch_s: int) -> str:
    return (_EPOCH + dt.timedelta(seconds=epoch_s)).isoformat(timespec="seconds").removesuffix("+00:00")


def iso(epoch_ms: int) -> str:
    """A moment as it is told: RFC 3339, UTC, milliseconds."""
    epoch_s, ms = divmod(epoch_ms, 1000)
    return f"{_second(epoch_s)}.{ms:03d}Z"


def _iso(epoch_ms: int | None) -> str | None:
    return None if epoch_ms is None else iso(epoch_ms)


def _ms(moment: dt.datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // dt.timedelta(milliseconds=1)


def _view(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "payment_id": str(fields["payment_id"]),
        "status": fields["status"],
        "merchant_id": fields["merchant_id"],
        "amount": money.to_decimal(fields["amount_minor"], fields["currency"]),
        "currency": fields["currency"],
        "payment_method": fields["payment_method"],
        "customer_id": fields["customer_id"],
        "description": fields["description"],
        "metadata": fields["metadata"],
        "lane": fields["lane"],
        "expires_at": _iso(fields["expires_at_ms"]),
        "attempts": fields["attempts"],
        "retry_at": _iso(fields["retry_at_ms"]),
        "reason": fields["reason"],
        "provider_charge_id": fields["provider_charge_id"],
        "created_at": _iso(fields["accepted_at_ms"]),
        "updated_at": _iso(fields["updated_at_ms"]),
        "version": fields["version"],
    }


def accepted(command: PaymentCommand, lane: str) -> dict[str, Any]:
    """A payment that was accepted a moment ago."""
    command = commands.normalised(command)
    return _view(
        {
            "payment_id": command.payment_id,
            "merchant_id": command.merchant_id,
            "amount_minor": command.amount_minor,
            "currency": command.currency,
            "payment_method": command.payment_method,
            "customer_id": command.customer_id,
            "description": command.description,
            "metadata": command.metadata,
            "expires_at_ms": command.expires_at_ms,
            "accepted_at_ms": command.accepted_at_ms,
            "updated_at_ms": command.accepted_at_ms,
            "lane": lane,
            "status": "PENDING",
            "attempts": 0,
            "retry_at_ms": None,
            "reason": None,
            "provider_charge_id": None,
            "version": 0,
        }
    )


def stored(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the ``payments`` table."""
    return _view(
        {
            **row,
            "status": row["state"],
            "attempts": row["attempt"],
            "metadata": orjson.loads(row["metadata"] or "{}"),
            "expires_at_ms": _ms(row["expires_at"]),
            "accepted_at_ms": _ms(row["accepted_at"]),
            "updated_at_ms": _ms(row["updated_at"]),
            "retry_at_ms": _ms(row["retry_at"]),
        }
    )


def ended(document: bytes, result: PaymentResult) -> bytes:
    """A payment's JSON as it was accepted, brought to its final state."""
    found = orjson.loads(document)
    found.update(
        status=result.status.value,
        attempts=result.attempts,
        retry_at=None,
        reason=result.reason,
        provider_charge_id=result.provider_charge_id,
        updated_at=_iso(result.final_at_ms),
        version=result.version,
        queue=None,
    )
    return orjson.dumps(found)


def event(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the ``payment_events`` table."""
    plain = ("attempt", "call", "outcome", "reason", "detail", "provider_charge_id", "replay_id", "lane")
    return {
        "version": row["version"],
        "type": row["type"],
        "status": row["state"],
        **{name: row[name] for name in plain},
        "at": _iso(_ms(row["at"])),
        "sent_at_us": row["sent_at_us"],
        "topic": row["topic"],
        "partition": row["partition"],
        "offset": row["offset"],
        "traceparent": row["traceparent"],
    }


def original(document: bytes) -> bytes:
    """A payment's JSON, as it stands, back to what its create was first answered."""
    found = orjson.loads(document)
    unchanged = {
        "status": "PENDING", "attempts": 0, "retry_at": None, "reason": None, "provider_charge_id": None, "version": 0
    }  # fmt: skip
    queue = found.get("queue")  # as it is now
    return orjson.dumps({**found, **unchanged, "updated_at": found["created_at"], "queue": queue})
