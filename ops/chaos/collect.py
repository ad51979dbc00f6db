"""What a run has left: topics, PostgreSQL, Redis, logs, the provider's own books; read once, kept in the folder."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import asyncpg
import redis.asyncio as redis

from ops.chaos import asked, history
from ops.chaos.case import Deed, aims_at
from ops.chaos.evidence import GRACE_NS, MS, Arrival, Blind, Charge, Evidence, Letter, Limit, Origin, Skew, Span, Told
from ops.chaos.history import Entry, Kind
from ops.chaos.rig import Rig
from ops.chaos.wishes import CARDS
from ops.kafka.reading import partition_counts, present
from schemas import codec, topics
from schemas.lanes import KEYLESS_SANDBOX
from schemas.records import DeadLetter, PaymentEvent, PaymentResult, State

REHOMED: Final = "rehomed-from"
BLIND_AFTER_NS: Final = 10_000_000_000
"""How long after Redis or the ingress is back an answer may still rest on what was not told or could not be asked."""
UNWRITTEN_AFTER_NS: Final = 60_000_000_000
"""How long after the last attack on what leads to PostgreSQL its rows may still be behind."""
_WRITERS: Final = ("postgres", "sink", "intake", "kafka")
_HARMLESS: Final = frozenset({Deed.CLOCK, Deed.SCRIPT_FLUSH})
_SENSITIVE: Final = tuple(card.encode() for card in CARDS)
_TABLES: Final = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
)


async def evidence(rig: Rig, *, grace_ns: int = GRACE_NS) -> Evidence:
    """Everything, in the shape the checker takes. Raises KafkaError, OSError, asyncpg's and Redis' errors."""
    told = _Topics()
    with (rig.folder / "topics.jsonl").open("w") as out:
        for name in sorted(await partition_counts(rig.kafka)):
            if not name.startswith("__"):
                async with aclosing(present(rig.kafka, name)) as records:
                    async for record in records:
                        out.write(_line(record))
                        told.add(record)
    arrivals, charges = _provider(rig)
    db = await asyncpg.connect(rig.stack.database_url, timeout=10)
    try:
        rows = {
            str(row["payment_id"]): Told(
                State(row["state"]), row["version"], row["amount_minor"], row["currency"], row["reason"]
            )
            for row in await db.fetch("SELECT payment_id, state, version, amount_minor, currency, reason FROM payments")
        }
        stored: list[Origin] = [
            (row["topic"], row["partition"], row["record_offset"])
            for row in await db.fetch('SELECT topic, partition, "offset" AS record_offset FROM dead_letters')
        ]
        leaks = [*told.leaks, *await _in_tables(db)]
    finally:
        await db.close()
    leaks += [*await _in_redis(rig.stack.redis_url), *_in_files(rig.folder)]
    faults = list(history.read(_files(rig.folder, "faults*")))
    heals = [entry.at_ns for entry in faults if entry.kind is Kind.HEAL]
    return Evidence(
        asked=asked.at_home(asked.asked(history.read(_files(rig.folder, "client-*"))), told.moved),
        arrivals=arrivals, charges=charges, events=told.events, results=told.results, rows=rows, letters=told.letters,
        stored_letters=stored, wall_ns=time.time_ns() - time.monotonic_ns(), healed_ns=max(heals, default=0),
        limits={
            name: Limit(lane.limit, lane.window_ms * MS, keys=lane.provider != KEYLESS_SANDBOX)
            for name, lane in rig.case.lanes.items()
        },
        leaks=sorted(set(leaks)), blind=blind(faults), skews=skews(faults),
        accepts_within_ns=int(rig.case.accepts_within_s * 1e9), calls_within_ns=int(rig.case.calls_within_s * 1e9),
        grace_ns=grace_ns,
    )  # fmt: skip


def blind(faults: Iterable[Entry]) -> Blind:
    """What may have kept a used key from the ingress. Pure.

    A failover forgets what was written since the standby was cut off, which is within its span. An ingress that ends or
    stands still between Kafka's ack and Redis' leaves a key untold. Clocks that jump and scripts that are gone cost no
    key.
    """
    lost, deaf, unwritten = list[Span](), list[Span](), list[Span]()
    for begin, end in _spans(faults):
        deed, _, what = begin.data["deed"].partition(" ")
        if deed in _HARMLESS:
            continue
        if what == "redis":
            kept = lost if deed in {Deed.KILL, Deed.FLUSH, Deed.FAILOVER} else deaf
            kept.append((begin.at_ns, end.at_ns + BLIND_AFTER_NS))
            if kept is lost and deed != Deed.FLUSH:
                deaf.append(kept[-1])
        elif what == "ingress":
            deaf.append((begin.at_ns, end.at_ns + BLIND_AFTER_NS))
        elif what.startswith(_WRITERS):
            unwritten.append((begin.at_ns, end.at_ns + UNWRITTEN_AFTER_NS))
    return Blind(lost, deaf, unwritten)


def skews(faults: Iterable[Entry]) -> list[Skew]:
    """When the clock of a dispatch process was wrong, and by how much. Pure.

    Intents and ends are told by dispatch alone: no other process' clock explains what they say. A jump that was never
    made explains nothing.
    """
    return [
        Skew(begin.at_ns, end.at_ns, begin.data["ms"] * MS)
        for begin, end in _spans(faults)
        if begin.data["deed"].startswith(f"{Deed.CLOCK} ")
        and aims_at("dispatch", begin.data["on"])
        and end.data["done"]
    ]


def _spans(faults: Iterable[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Each fault from its beginning to its end."""
    begun: dict[str, Entry] = {}
    for entry in faults:
        if entry.kind is Kind.FAULT:
            begun[entry.of] = entry
        elif entry.kind is Kind.HEAL and entry.of in begun:
            yield begun[entry.of], entry


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(f"{pattern}.jsonl"))


def _line(record: Any) -> str:
    fields = {
        "topic": record.topic, "partition": record.partition, "offset": record.offset, "at_ms": record.timestamp,
        "key": base64.b64encode(record.key or b"").decode(), "value": base64.b64encode(record.value or b"").decode(),
        "headers": [(name, base64.b64encode(value or b"").decode()) for name, value in record.headers],
    }  # fmt: skip
    return json.dumps(fields) + "\n"


class _Topics:
    """What the topics say, record by record."""

    def __init__(self) -> None:
        self.events: list[PaymentEvent] = []
        self.results: dict[str, Told] = {}
        self.letters: list[Letter] = []
        self.moved: dict[Origin, Origin] = {}
        self.leaks: list[str] = []

    def add(self, record: Any) -> None:
        """Take one record. A merchant's own command may hold what it likes; what we make of it may not."""
        value: bytes = record.value or b""
        if record.topic == topics.COMMANDS:
            self._moved(record)
            return
        if any(card in value or card in (record.key or b"") for card in _SENSITIVE):
            self.leaks.append(record.topic)
        try:
            self._decode(record.topic, value)
        except codec.DecodeError:
            return  # planted garbage, of which there must be a dead letter

    def _decode(self, topic: str, value: bytes) -> None:
        if topic == topics.EVENTS:
            self.events.append(codec.decode(value, PaymentEvent))
        elif topic == topics.RESULTS:
            result = codec.decode(value, PaymentResult)
            before = self.results.get(result.payment_id)
            if before is None or result.version >= before.version:
                self.results[result.payment_id] = Told(
                    result.status, result.version, result.amount_minor, result.currency, result.reason
                )
        elif topic == topics.DEAD_LETTER:
            letter = codec.decode(value, DeadLetter)
            origin = (letter.topic, letter.partition, letter.offset)
            self.letters.append(Letter(origin, letter.reason, letter.payment_id))

    def _moved(self, record: Any) -> None:
        """A command that intake has moved home; of several copies the first one counts."""
        for name, value in record.headers or ():
            if name == REHOMED:
                partition, _, offset = value.decode().partition("/")
                foreign = (topics.COMMANDS, int(partition), int(offset))
                self.moved.setdefault(foreign, (topics.COMMANDS, record.partition, record.offset))


def _provider(rig: Rig) -> tuple[list[Arrival], list[Charge]]:
    arrivals: list[Arrival] = []
    charges: list[Charge] = []
    for lane, url in rig.simulators.items():
        with urllib.request.urlopen(f"{url}/observed", timeout=30) as answer:  # noqa: S310 - our own http address
            found = json.load(answer)
        if found["dropped"]:
            raise ValueError(f"the log of {lane}'s provider is full: a shorter case, please")
        (rig.folder / f"provider-{lane}.json").write_text(json.dumps(found))
        for seen in found["requests"]:
            wanted = seen["path"].rpartition("/")[2] if seen["method"] == "GET" else ""
            key = seen["key"] or wanted or seen["reference"] or ""
            arrivals.append(Arrival(seen["arrived_ns"], lane, seen["method"], key, seen["reference"] or key))
        charges += [
            Charge(
                each["reference"], each["key"], approved=each["status"] == "approved",
                amount_minor=each["amount_minor"], currency=each["currency"],
            )
            for each in found["charges"]
        ]  # fmt: skip
    return arrivals, charges


async def _in_tables(db: asyncpg.Connection) -> list[str]:
    found = []
    for row in await db.fetch(_TABLES):
        table = row["table_name"]
        text = f'SELECT count(*) FROM "{table}" t WHERE t::text LIKE ANY ($1) OR t::text LIKE ANY ($2)'  # noqa: S608 - names out of the catalogue
        plain, hexed = [f"%{card}%" for card in CARDS], [f"%{card.encode().hex()}%" for card in CARDS]
        if await db.fetchval(text, plain, hexed):
            found.append(f"table {table}")
    return found


async def _in_redis(url: str) -> list[str]:
    client = redis.from_url(url, socket_timeout=10)
    try:
        found = []
        async for key in client.scan_iter(count=1000):
            kind = await client.type(key)
            value: Any = b""
            if kind == b"string":
                value = await client.get(key)
            elif kind == b"hash":
                value = await client.hgetall(key)
            elif kind == b"zset":
                value = await client.zrange(key, 0, -1)
            if any(card in repr((key, value)) for card in CARDS):
                found.append("redis")
        return found
    finally:
        await client.aclose()


def _in_files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.log")):
        text = path.read_bytes()
        if any(card in text for card in _SENSITIVE):
            yield path.name
