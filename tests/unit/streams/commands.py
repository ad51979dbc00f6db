"""Commands as records, and what the router makes of them."""

from __future__ import annotations

import json
from typing import Any

from ops.kafka.clients import partition_for
from ops.kafka.message import Message
from schemas import codec, identity, topics
from schemas.records import DeadLetter
from streams.router import Plan, Record, Router

NOW_MS = 1_800_000_000_000
PARTITIONS = 12
ROUTER = Router(("simulator", "second"), PARTITIONS)
PAN = "4111 1111 1111 1111"
FIELDS = {
    "type": "create",
    "merchant_id": "shop",
    "idempotency_key": "order-1",
    "amount": "12.50",
    "currency": "USD",
    "payment_method": "pm_approve",
}
ID = identity.payment_id("shop", "order-1")
KEY = ID.encode()
HOME = partition_for(KEY, PARTITIONS)


def record(value: bytes, offset: int = 7, partition: int = HOME, **changes: Any) -> Record:
    return Record(partition=partition, offset=offset, timestamp_ms=NOW_MS - 100, value=value, **changes)


def create(offset: int = 7, partition: int = HOME, **changes: Any) -> Record:
    return record(json.dumps(FIELDS | changes).encode(), offset, partition)


def cancel(offset: int = 9, **fields: Any) -> Record:
    return record(json.dumps({"type": "cancel", "payment_id": ID, **fields}).encode(), offset)


def planned(*records: Record, memory: dict[bytes, bytes] | None = None) -> Plan:
    return ROUTER.plan(records, memory or {}, NOW_MS)


def topics_of(plan: Plan) -> list[str]:
    return [message.topic for message in plan.messages]


def letter(message: Message) -> DeadLetter:
    assert message.topic == topics.DEAD_LETTER
    assert message.value is not None
    return codec.decode(message.value, DeadLetter)


REMEMBERED = planned(create()).remember
