"""Replay: a dead letter back to where its payment goes on, under the payment's own id and a new replay id.

Pure. A task goes to its lane's due topic as the call after the last one: the ledger leaves a final payment alone, and
asks the provider first wherever a call may have landed. A command goes to intake once more, which decides on it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ops.kafka.message import Message
from ops.letters import OF_NO_PAYMENT, TASK_STAGES, Found, task_of
from schemas import codec, command, seal, strict_json, topics
from schemas.records import FINAL, PaymentCommand, TaskKind

Renew = Callable[[bytes, bytes], bytes]
"""A seal of this moment in place of a value's seal that is one of ours; any other stays what it is."""

BULK: Final = 10
"""More than so many at once need a second person."""


class Refused(Exception):
    """A letter that cannot be replayed; the message says why, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Who replays, and under which id; ``approved_by`` is the second person, empty for a few."""

    replay_id: str
    replayed_by: str
    approved_by: str = ""

    def headers(self, origin: str) -> tuple[tuple[str, bytes], ...]:
        """The headers of a replayed record."""
        found = {"replay-id": self.replay_id, "replay-of": origin, "replayed-by": self.replayed_by}
        if self.approved_by:
            found["approved-by"] = self.approved_by
        return tuple((name, text.encode()) for name, text in found.items())


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay does: letters with the record that each becomes, payments left as they are, letters refused."""

    sends: tuple[tuple[Found, Message], ...]
    final: tuple[Found, ...]
    refused: tuple[tuple[Found, str], ...]


def plan(  # noqa: PLR0913 - all that decides
    wanted: Iterable[Found],
    *,
    newest: Mapping[str, Found],
    final: Collection[str],
    existing: Collection[str],
    audit: Audit,
    renew: Renew = lambda _, old: old,
) -> Plan:
    """What to do with these letters.

    ``newest``: each payment's letter that counts; ``final``: payments known to be final; ``existing``: the topics.
    """
    sends: list[tuple[Found, Message]] = []
    done: list[Found] = []
    refused: list[tuple[Found, str]] = []
    for found in wanted:
        if found.of_payment in final:
            done.append(found)
            continue
        try:
            _check_newest(found, newest)
            message = replayed(found, audit, renew)
            _check_topic(message.topic, existing)
        except Refused as error:
            refused.append((found, str(error)))
        else:
            sends.append((found, message))
    return Plan(tuple(sends), tuple(done), tuple(refused))


def _check_newest(found: Found, newest: Mapping[str, Found]) -> None:
    last = newest.get(found.of_payment or "")
    if last is not None and last.origin != found.origin:
        raise Refused(f"the payment was called again since; replay its newer letter {last.origin}")


def _check_topic(topic: str, existing: Collection[str]) -> None:
    if topic not in existing:
        raise Refused(f"there is no topic {topic}: add the lane to LANES, then `kifiya topics create`")


def replayed(found: Found, audit: Audit, renew: Renew = lambda _, old: old) -> Message:
    """The record that puts a letter's original back. Raises Refused.

    A command keeps the seal that it had and gets none that it had not: a replay lends no forged one the gateway's word.
    """
    letter = found.letter
    if not found.whole:
        raise Refused(
            f"only {len(letter.original)} of its {letter.original_size} bytes were kept: send the payment again"
        )
    if letter.stage == "intake":
        old = seal.of(found.headers.items())
        sealed = () if old is None else ((seal.HEADER, renew(letter.original, old)),)
        headers = (*audit.headers(found.origin), *sealed)
        return Message(topics.COMMANDS, _key_of(letter.original), letter.original, headers)
    if letter.stage not in TASK_STAGES:
        raise Refused(f"letters of stage {letter.stage!r} hold no payment to put back")
    try:
        task = task_of(letter)
    except codec.DecodeError:
        raise Refused("its original is no payment task: whoever wrote it has to send it again, as a command") from None
    if letter.reason in OF_NO_PAYMENT:
        raise Refused(f"{letter.reason}: the record did not come from intake: send the payment again, as a command")
    if task.kind is TaskKind.CANCEL:
        back, topic = replace(task, replay_id=audit.replay_id), topics.cancel_topic(task.lane)
    else:
        # A reviewed payment's letter counts the calls begun; a task that was never handled is still to be handled.
        attempt = letter.attempts + 1 if letter.attempts else task.attempt
        back = replace(task, attempt=attempt, not_before_ms=0, replay_id=audit.replay_id)
        topic = topics.due_topic(task.lane)
    return Message(topic, task.payment_id.encode(), codec.encode(back), audit.headers(found.origin))


def _key_of(original: bytes) -> bytes | None:
    """The key that brings a command to its home partition; None lets intake move it there."""
    try:
        if original[:1] == b"{":
            asked = command.from_json(strict_json.loads(original), lanes=frozenset(), accepted_at_ms=0)
        else:
            asked = command.check(codec.decode(original, PaymentCommand), lanes=frozenset())
    except ValueError:  # InvalidCommand, InvalidJson, DecodeError: intake will say so again
        return None
    return (asked.payment_id or "").encode()


def is_final(state: str) -> bool:
    """Whether a state, as PostgreSQL has it, is one that no replay changes."""
    return state in {item.value for item in FINAL}
