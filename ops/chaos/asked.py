"""From the clients' histories to what the checker takes: who asked for what, and what they were told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from ops.chaos.evidence import Answer, Asked, Origin, Via
from ops.chaos.history import Entry, Kind, learned

MAYBE_CODES: Final = frozenset({"kafka-away", "internal-error"})
"""Codes of an answer after which the command may be stored all the same."""


def of_http(status: int, *, replayed: bool, code: str) -> Answer:
    """What an HTTP answer tells its client."""
    if status in {HTTPStatus.CREATED, HTTPStatus.ACCEPTED} and not replayed:
        return Answer.ACCEPTED
    if replayed or status == HTTPStatus.OK:
        return Answer.REPEATED
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and (code in MAYBE_CODES or not code):
        return Answer.MAYBE
    return Answer.REFUSED


def asked(entries: Iterable[Entry]) -> list[Asked]:
    """Every request in these histories. Raises ValueError for a history that contradicts itself."""
    found = []
    for invoked, ended in learned(entries).values():
        said: dict[str, Any] = invoked.data
        answer, origin, aborted = Answer.MAYBE, None, False
        if ended is not None and ended.kind is not Kind.INFO:
            answer = Answer(ended.data["answer"])
            raw = ended.data.get("origin")
            origin = (str(raw[0]), int(raw[1]), int(raw[2])) if raw else None
            aborted = bool(ended.data.get("aborted"))
        found.append(
            Asked(
                via=Via(said["via"]), payment_id=said["payment_id"], merchant_id=said["merchant_id"], key=said["key"],
                body=said["body"], amount_minor=said["amount_minor"], currency=said["currency"], answer=answer,
                answered_ns=(ended or invoked).at_ns, origin=origin, cancel=said["cancel"], bad=said["bad"],
                aborted=aborted,
            )
        )  # fmt: skip
    return found


def at_home(found: Iterable[Asked], moved: Mapping[Origin, Origin]) -> list[Asked]:
    """The same, each record where intake decides about it: ``moved`` tells where a record was put, that was foreign."""
    return [
        replace(each, origin=moved[each.origin]) if each.origin is not None and each.origin in moved else each
        for each in found
    ]
