"""Every topic of the gateway, declared once: name, record, partitions, retention, purpose."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

COMMANDS: Final = "payments.commands"
EVENTS: Final = "payments.events"
RESULTS: Final = "payments.results"
DEAD_LETTER: Final = "payments.dead-letter"

INTAKE_APP: Final = "kifiya.intake"
SINK_APP: Final = "kifiya.sink"
DELAY_GROUP: Final = "kifiya.delay"
SEEN_TABLE: Final = "seen"
LEDGER_TABLE: Final = "ledger"

DEFAULT_TIERS: Final = ("1s", "2s", "5s", "15s", "1m", "5m")

LEVELS: Final = (1, 1, 1, 3)
"""How many queues of fresh tasks each level of a lane has; the last one's are shared out among merchants by a hash."""

_DAY_MS: Final = 86_400_000
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600}
_TIER = re.compile(r"[1-9][0-9]{0,5}[smh]", re.ASCII)


def lane_topic(lane: str) -> str:
    """Fresh tasks of a lane, of merchants that have little waiting: the first of its queues."""
    return f"payments.lane.{lane}"


def queue_topic(lane: str, level: int, number: int = 0) -> str:
    """One queue of fresh tasks, ``number`` within its level. Raises IndexError where there is no such level."""
    if level == 0:
        return lane_topic(lane)
    return f"payments.lane.{lane}.l{level}" + (f"-{number}" if LEVELS[level] > 1 else "")


def queue_topics(lane: str) -> tuple[str, ...]:
    """All queues of a lane's fresh tasks, in the order of service."""
    return tuple(queue_topic(lane, level, number) for level, count in enumerate(LEVELS) for number in range(count))


def queue_number(level: int, merchant_id: str) -> int:
    """Which of a level's queues is a merchant's: two who send a lot share a level, mostly, rather than one line."""
    return zlib.crc32(merchant_id.encode()) % LEVELS[level]


def due_topic(lane: str) -> str:
    """Retries of a lane that have become due; served before fresh ones."""
    return f"payments.lane.{lane}.due"


def cancel_topic(lane: str) -> str:
    """Cancellations of a lane."""
    return f"payments.lane.{lane}.cancel"


def limiter_topic(lane: str) -> str:
    """What a lane's workers say about who grants its permits; one partition, so one order."""
    return f"payments.lane.{lane}.limiter"


def retry_topic(tier: str) -> str:
    """Tasks that wait for one tier's delay."""
    return f"payments.retry.{tier}"


def tier_of(topic: str) -> str | None:
    """The tier whose tasks wait in this topic; None: it is no retry topic."""
    tier = topic.removeprefix(retry_topic(""))
    return tier if tier != topic and _TIER.fullmatch(tier) else None


def dispatch_app(lane: str) -> str:
    """Faust application id, so consumer group, of a lane's dispatch."""
    return f"kifiya.dispatch.{lane}"


def changelog_topic(app: str, table: str) -> str:
    """The changelog of a table, named as Faust names it."""
    return f"{app}-{table}-changelog"


def tier_ms(tier: str) -> int:
    """``"15s" -> 15000``. Raises ValueError unless it is a whole number with s, m or h."""
    if not _TIER.fullmatch(tier):
        raise ValueError(f"retry tier {tier!r}: write a whole number with s, m or h, as in 15s")
    return int(tier[:-1]) * _UNITS_S[tier[-1]] * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: ``value`` is the record's name (empty for a changelog), ``config`` the broker's topic settings."""

    name: str
    value: str
    partitions: int
    config: dict[str, str]
    purpose: str


# A broker holds max.message.bytes against whole batches, and our producers fill batches of up to 256 KiB.
_WORK: Final = {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": "262144"}
_LOG_30D: Final = {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY_MS), "max.message.bytes": "262144"}
_COMPACTED: Final = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": str(7 * _DAY_MS),
    "max.message.bytes": "262144",
}


# Beats are worth little when they are old; the last of each worker stays. A worker that starts reads them all.
_BEATS: Final = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": "600000",
    "segment.ms": "600000",
    "max.message.bytes": "262144",
}


def declare(
    lanes: Iterable[str],
    *,
    tiers: Iterable[str] = DEFAULT_TIERS,
    command_partitions: int = 12,
    lane_partitions: int = 8,
) -> list[Topic]:
    """All topics for these lanes and tiers, in the order of a payment's journey."""
    topics = [
        Topic(COMMANDS, "PaymentCommand", command_partitions, _WORK, "commands of merchants, over HTTP or direct"),
        Topic(
            changelog_topic(INTAKE_APP, SEEN_TABLE),
            "",
            command_partitions,
            _COMPACTED,
            "intake's memory of the keys seen",
        ),
    ]
    for lane in lanes:
        topics += [
            *(
                Topic(name, "PaymentTask", lane_partitions, _WORK, f"fresh tasks of lane {lane}, queue {number}")
                for number, name in enumerate(queue_topics(lane), 1)
            ),
            Topic(due_topic(lane), "PaymentTask", lane_partitions, _WORK, f"due retries of lane {lane}"),
            Topic(cancel_topic(lane), "PaymentTask", lane_partitions, _WORK, f"cancellations of lane {lane}"),
            Topic(
                changelog_topic(dispatch_app(lane), LEDGER_TABLE),
                "",
                lane_partitions,
                _COMPACTED,
                f"ledger of lane {lane}",
            ),
            Topic(limiter_topic(lane), "LimiterBeat", 1, _BEATS, f"who grants the permits of lane {lane}"),
        ]
    topics += [
        Topic(retry_topic(tier), "PaymentTask", lane_partitions, _WORK, f"tasks that wait {tier}") for tier in tiers
    ]
    topics += [
        Topic(EVENTS, "PaymentEvent", command_partitions, _LOG_30D, "every change and every provider call"),
        Topic(
            RESULTS,
            "PaymentResult",
            command_partitions,
            {"cleanup.policy": "compact", "max.message.bytes": "262144"},
            "the final state of each payment",
        ),
        Topic(DEAD_LETTER, "DeadLetter", command_partitions, _LOG_30D, "what waits for a person"),
    ]
    return topics
