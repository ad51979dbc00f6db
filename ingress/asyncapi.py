"""The Kafka side of the contract as AsyncAPI 3: the topics as they are declared, the records as they are registered.

Operations are told from the gateway's side: what it receives, a merchant's producer sends, and the other way round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from ingress.models import ID, NewPayment
from ops import trace
from schemas import registry, seal, topics
from schemas.topics import Topic

AVRO: Final = "application/vnd.apache.avro+json;version=1.9.0"
_TRACEPARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
RECEIVED: Final = frozenset({topics.COMMANDS})
SENT: Final = frozenset({topics.EVENTS, topics.RESULTS, topics.DEAD_LETTER})
PUBLIC: Final = RECEIVED | SENT
"""Topics for others than the gateway; all else is between its roles, and may change with any version."""

JSON_COMMAND: Final = "PaymentCommandJson"
_SEALED: Final = frozenset({"PaymentCommand", "DeadLetter"})
_KEYS: Final = {
    topics.COMMANDS: "Any, or none: the gateway moves a record to its payment's partition.",
    "LimiterBeat": "The worker.",
    topics.DEAD_LETTER: "The payment's id; topic/partition/offset of its origin where that is a command.",
}
_SAID_OF: Final = {
    topics.COMMANDS: (
        " A producer may name the merchants of the setting KAFKA_MERCHANTS; a command of another merchant's becomes a "
        "dead letter merchant-not-admitted, unless a part of the gateway has sealed it."
    ),
}
_KEY: Final = "The payment's id; partitioned by murmur2, as Java's producer does."

_PAYMENT: Final[dict[str, Any]] = {
    "payment_id": ID, "merchant_id": "shop", "idempotency_key": "order-1001", "amount_minor": 1250, "currency": "USD",
    "lane": "simulator", "accepted_at_ms": 1769860800000,
}  # fmt: skip
_SAID: Final = {"payment_method": "pm_approve", "customer_id": "cust_7", "description": "Order 1001",
                "metadata": {"order": "1001"}}  # fmt: skip
_FINGERPRINT: Final = {"fingerprint": "4f6c35d0c8a5b5a5f7e1d1c2b3a49586776655443322110099887766554433ab"}
EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "PaymentCommand": {"type": "create", **_PAYMENT, **_SAID},
    "PaymentTask": {"kind": "create", **_PAYMENT, **_SAID, **_FINGERPRINT, "attempt": 1},
    "PaymentEvent": {
        "type": "call_finished", "version": 3, "state": "COMPLETED", **_PAYMENT, **_SAID, **_FINGERPRINT,
        "attempt": 1, "call": "charge", "outcome": "approved", "provider_charge_id": "ch_1",
        "at_ms": 1769860802345, "sent_at_us": 1769860802123456,
    },
    "PaymentResult": {"status": "COMPLETED", "version": 3, **_PAYMENT, "provider_charge_id": "ch_1", "attempts": 1,
                      "final_at_ms": 1769860802345},
    "DeadLetter": {
        "reason": "undecodable", "detail": "is not JSON", "stage": "intake", "topic": topics.COMMANDS, "partition": 3,
        "offset": 41, "original": "{", "original_size": 1, "at_ms": 1769860800000,
        "original_sha256": "021fb596db81e6d02bf3d2586ee3981fe519f275c0ac9ca76bbcf2ebb4097d96",
    },
    "LimiterBeat": {"lane": "simulator", "worker": "7d1f3c0a", "beat": 1, "epoch": 0, "settled": True, "redis": True,
                    "postgres": True},
}  # fmt: skip
JSON_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "create": {"type": "create", "idempotency_key": "order-1001", **NewPayment.model_json_schema()["examples"][0]},
    "cancel": {"type": "cancel", "payment_id": ID},
}


def document(lanes: Collection[str]) -> dict[str, Any]:
    """The document, for a gateway with these lanes."""
    declared = topics.declare(lanes)
    names = dict.fromkeys(topic.value for topic in declared if topic.value)
    messages = {name: _message(name) for name in names}
    messages[JSON_COMMAND] = _json_command()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Kifiya Payment Gateway, Kafka",
            "version": "1",
            "description": (
                "Values are Avro in Confluent's wire format (0x00, four bytes of schema id, body); the schemas are "
                "served under /registry. Commands may be JSON, too. Consumers keep, per payment, the highest version."
            ),
        },
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "Needs no transactions and no header.",
                "variables": {"bootstrap": {"description": "KAFKA_BOOTSTRAP of the gateway", "default": "kafka:9092"}},
            }
        },
        "defaultContentType": "application/vnd.apache.avro",
        "channels": {topic.name: _channel(topic) for topic in declared},
        "operations": dict(_operations(declared)),
        "components": {"messages": messages},
    }


def _channel(topic: Topic) -> dict[str, Any]:
    settings: dict[str, Any] = {
        name: [value] if name == "cleanup.policy" else int(value) for name, value in topic.config.items()
    }
    found: dict[str, Any] = {
        "address": topic.name,
        "summary": f"{topic.purpose[0].upper()}{topic.purpose[1:]}.",
        "tags": [{"name": "public" if topic.name in PUBLIC else "internal"}],
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": settings,
                "bindingVersion": "0.5.0",
            }
        },
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _values(topic)},
    }
    if topic.value:
        key = _KEYS.get(topic.name) or _KEYS.get(topic.value, _KEY)
        found["description"] = f"Key: {key}{_SAID_OF.get(topic.name, '')}"
    return found


def _values(topic: Topic) -> list[str]:
    if topic.name == topics.COMMANDS:
        return [topic.value, JSON_COMMAND]
    return [topic.value] if topic.value else []


def _operations(declared: Iterable[Topic]) -> Iterable[tuple[str, dict[str, Any]]]:
    for topic in declared:
        if topic.name in PUBLIC:
            word = "receive" if topic.name in RECEIVED else "send"
            yield (
                f"{word}-{topic.name}",
                {
                    "action": word,
                    "channel": {"$ref": f"#/channels/{topic.name}"},
                    "summary": f"The gateway {word}s {topic.purpose}.",
                },
            )


def _message(name: str) -> dict[str, Any]:
    entry = registry.latest(name)
    return {
        "name": name,
        "title": name,
        "summary": entry.schema["doc"],
        "contentType": "application/vnd.apache.avro",
        "headers": _headers(sealed=name in _SEALED),
        "payload": {"schemaFormat": AVRO, "schema": entry.schema},
        "bindings": {
            "kafka": {
                "key": {"type": "string"},
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                "bindingVersion": "0.5.0",
            }
        },
        "examples": [{"name": name, "payload": EXAMPLES[name]}],
        "x-schema-id": entry.id,
        "x-subject": entry.subject,
    }


def _json_command() -> dict[str, Any]:
    create = NewPayment.model_json_schema()
    key = {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$", "description": "Names the payment for ever."}
    merchant = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$", "description": "Who is paid."}
    fields = {**create["properties"], "merchant_id": merchant, "idempotency_key": key}
    required = ["type", "merchant_id", "idempotency_key", "amount", "currency", "payment_method"]
    cancel = {"payment_id": {"type": "string", "format": "uuid"}, "merchant_id": merchant, "idempotency_key": key}
    return {
        "name": JSON_COMMAND,
        "title": "PaymentCommand as JSON",
        "summary": "The same as JSON: what begins with { is read as such.",
        "contentType": "application/json",
        "headers": _headers(sealed=True),
        "payload": {
            "oneOf": [
                _object("create", "Create a payment.", fields, required),
                {
                    **_object("cancel", "Cancel a payment that was not sent yet.", cancel, ["type"]),
                    "anyOf": [{"required": ["payment_id"]}, {"required": ["merchant_id", "idempotency_key"]}],
                },
            ]
        },
        "examples": [{"name": name, "payload": example} for name, example in JSON_EXAMPLES.items()],
    }


def _object(kind: str, description: str, fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": {"type": {"const": kind}, **fields},
        "required": required,
    }


def _headers(*, sealed: bool) -> dict[str, Any]:
    context = {"type": "string", "description": "W3C trace context; passed on.", "examples": [_TRACEPARENT]}
    of_ours = {
        "type": "string",
        "pattern": "^[0-9]{1,15}\\.[0-9a-f]{64}$",
        "description": "Of the gateway's own parts only: when it sealed the command, and an HMAC-SHA256.",
    }
    return {"type": "object", "properties": {trace.HEADER: context, **({seal.HEADER: of_ours} if sealed else {})}}
