"""A chaos case: workload, faults, seed and duration, declared in JSON, and the schedule that follows from them. Pure.

A case that found a defect stays in ``ops/chaos/cases`` with its seed: the same seed makes the same requests and the
same schedule of faults. What the machine makes of them in between is its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from ops.chaos import typed
from schemas.lanes import LANE_NAME, Lane, parse_lanes

FOLDER: Final = Path(__file__).parent / "cases"
LONGEST_S: Final = 3600.0
MOST_FAULTS: Final = 1000
MOST_A_SECOND: Final = 1000.0
MOST_WORKERS: Final = 16
MOST_SEED: Final = 2**63 - 1

BadCase = typed.BadCase

T = TypeVar("T")


class Deed(StrEnum):
    """What a fault does; a closed set."""

    KILL = "kill"
    STOP = "stop"
    TERM = "term"
    FLUSH = "flush"
    SCRIPT_FLUSH = "script-flush"
    FAILOVER = "failover"
    CLOCK = "clock"
    LATENCY = "latency"
    RESET = "reset"
    STALL = "stall"
    BLACKHOLE = "blackhole"
    DROP_ANSWERS = "drop-answers"


ROLES: Final = ("ingress", "intake", "dispatch", "delay", "sink")
SERVICES: Final = ("kafka", "redis", "postgres")
MANY: Final = ("dispatch", "kafka")
"""The targets that stand for several: each lane's dispatch, each node."""
LINKS: Final = (*SERVICES, "provider")
OWN_LINKS: Final = ("redis", "postgres")
"""The links that may be attacked for one worker alone: who keeps to the limit asks these two."""
NODES: Final = (1, 3)
"""How many nodes Kafka may have: of two none may be missing."""
PROCESS: Final = frozenset({Deed.KILL, Deed.STOP, Deed.TERM})
REDIS_ONLY: Final = frozenset({Deed.FLUSH, Deed.SCRIPT_FLUSH, Deed.FAILOVER})
NETWORK: Final = frozenset({Deed.LATENCY, Deed.RESET, Deed.STALL, Deed.BLACKHOLE, Deed.DROP_ANSWERS})
FURTHEST_MS: Final = 3_600_000
"""How far a clock may jump: Kafka takes no record from further ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One deed, once at each moment of ``at_s`` or, drawn by the seed, every so many seconds.

    ``what`` is a role, a service, one node of Kafka (``kafka-2``) or, for a deed to the network, the link that leads
    there. ``for_s`` is how long it lasts; what was killed is started again after that, a clock is set right; a Redis
    serves on so long, alone, before its stale standby takes over. ``of``: the one worker whose link it is, where a deed
    to the network is not done to all (``dispatch-wide#2``). ``ms``: a latency, half of it jitter; or how far a
    wall clock jumps ahead, negative: back.
    """

    do: Deed
    what: str
    at_s: tuple[float, ...] = ()
    every_s: tuple[float, float] | None = None
    for_s: float = 0.0
    ms: int = 0
    of: str = ""

    @property
    def kind(self) -> str:
        """As the ledger counts it."""
        return f"{self.do} {self.link}"

    @property
    def link(self) -> str:
        """What it is done to; of one worker's link, whose it is."""
        return f"{self.what} of {self.of}" if self.of else self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests a second by the way they take, and what share of them is no fresh, good create.

    ``methods`` weighs the provider's modes. ``transactions``: a second, five records each, every third one aborted.
    """

    http: float = 0.0
    kafka: float = 0.0
    transactions: float = 0.0
    repeats: float = 0.05
    conflicts: float = 0.02
    cancels: float = 0.03
    bad: float = 0.03
    methods: Mapping[str, float] = field(default_factory=lambda: {"pm_approve": 1.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All of one run. ``settings`` go to every role; ``workers`` says how many processes a role has, where not one.

    ``accepts_within_s``: while the load lasts, so long at most passes between two creates that HTTP accepts; 0: however
    long. ``calls_within_s``: so long at most a payment waits while its lane calls nobody; 0: however long.
    ``at_failpoints``: what happens, instead of faults, to every role at each of its failpoints; the load then lasts
    until the last one was reached.
    """

    name: str
    purpose: str
    seed: int = 1
    duration_s: float = 60.0
    stack: Literal["apache", "embedded"] = "apache"
    kafka_nodes: int = 1
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    workload: Workload = field(default_factory=Workload)
    faults: tuple[Fault, ...] = ()
    workers: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    accepts_within_s: float = 0.0
    calls_within_s: float = 0.0
    at_failpoints: Literal["", "kill", "raise", "pause"] = ""

    def workers_of(self, role: str) -> list[str]:
        """The names of a role's processes; dispatch's role has its lane in it."""
        count = self.workers.get(role, self.workers.get(role.partition("-")[0], 1))
        return [role if number == 1 else f"{role}#{number}" for number in range(1, count + 1)]

    @property
    def nodes(self) -> list[str]:
        """Kafka's nodes by name, where it has several."""
        return [f"kafka-{number}" for number in range(1, self.kafka_nodes + 1)] if self.kafka_nodes > 1 else []


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """A fault at its moment, seconds after the load began."""

    at_s: float
    number: int
    fault: Fault = field(compare=False)


def aims_at(what: str, name: str) -> bool:
    """Whether a fault of this target may take the process of this name: all lanes' dispatch, all nodes of Kafka."""
    return name.partition("#")[0] == what or (what in MANY and name.startswith(f"{what}-"))


def schedule(case: Case) -> list[Due]:
    """Every fault with its moment, in order; the same for the same case and seed."""
    found: list[tuple[float, Fault]] = []
    for place, fault in enumerate(case.faults):
        found += [(at, fault) for at in fault.at_s]
        if fault.every_s is not None:
            chance = random.Random(f"{case.seed}-{place}-{fault.kind}")  # noqa: S311 - a seed that can be had again
            at = chance.uniform(0, fault.every_s[1])
            while at < case.duration_s and len(found) <= MOST_FAULTS:
                found.append((at, fault))
                at += fault.for_s + chance.uniform(*fault.every_s)
    if len(found) > MOST_FAULTS:
        raise BadCase(f"faults: too many of them, {MOST_FAULTS} are the most")
    ordered = sorted(found, key=lambda each: (each[0], each[1].kind))
    return [Due(at, number, fault) for number, (at, fault) in enumerate(ordered, 1)]


def load(name: str) -> Case:
    """The case in this file, or of this name among ours. Raises BadCase."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        path = Path(name)
    try:
        return parse(path.read_text())
    except OSError as error:
        raise BadCase(f"{name}: there is no such case; there are {', '.join(names())}") from error
    except UnicodeDecodeError as error:
        raise BadCase(f"{path.name}: is not text in UTF-8") from error
    except BadCase as error:
        raise BadCase(f"{path.name}: {error}") from error


def names() -> list[str]:
    """The cases that come with the product."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def parse(text: str) -> Case:
    """A case out of its JSON. Raises BadCase naming the field."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadCase(f"is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise BadCase("must be a JSON object")
    lanes = raw.pop("lanes", {"simulator": {"limit": 2}})
    faults = raw.pop("faults", [])
    workload = raw.pop("workload", {})
    if not isinstance(faults, list):
        raise BadCase("faults: must be a list")
    found = _make(
        Case,
        raw | {
            "lanes": _lanes(lanes),
            "faults": tuple(_fault(each, f"faults.{place}") for place, each in enumerate(faults)),
            "workload": _make(Workload, workload, "workload"),
        },
        "",
    )  # fmt: skip
    check(found)
    return found


_SECONDS: Final = typed.number(0, LONGEST_S, unit="seconds")
_LASTS: Final = typed.number(0, LONGEST_S, above=True)
_RATE: Final = typed.number(0, MOST_A_SECOND, unit="times a second")
_SHARE: Final = typed.number(0, 1, unit="a share")
_CHECKS: Final[Mapping[type, Mapping[str, typed.Check]]] = {
    Case: {
        "name": typed.matching(LANE_NAME), "purpose": typed.text, "seed": typed.whole(0, MOST_SEED),
        "duration_s": typed.number(0, LONGEST_S, above=True, unit="seconds"),
        "stack": typed.one_of("apache", "embedded"), "kafka_nodes": typed.one_of(*NODES),
        "workers": typed.each_value(typed.whole(1, MOST_WORKERS, "how many processes")),
        "settings": typed.each_value(typed.string), "accepts_within_s": _SECONDS, "calls_within_s": _SECONDS,
        "at_failpoints": typed.one_of("", "kill", "raise", "pause"),
    },
    Workload: {
        "http": _RATE, "kafka": _RATE, "transactions": _RATE, "repeats": _SHARE, "conflicts": _SHARE,
        "cancels": _SHARE, "bad": _SHARE,
        "methods": typed.each_value(typed.number(0, 1e9, above=True, unit="a weight"), some=True),
    },
    Fault: {"what": typed.text, "of": typed.string},
}  # fmt: skip


def _make(kind: type[T], raw: Any, where: str) -> T:
    if not isinstance(raw, dict):
        raise BadCase(f"{where}: must be an object")
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]  # our own dataclasses
    if unknown := sorted(set(raw) - known):
        raise BadCase(f"{where + '.' if where else ''}{unknown[0]}: is no field; there are {', '.join(sorted(known))}")
    typed.check_all(raw, _CHECKS[kind], where)
    needed = (each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING)  # type: ignore[arg-type]  # as above
    if lacking := sorted(set(needed) - set(raw)):
        raise BadCase(f"{where + '.' if where else ''}{lacking[0]}: is missing")
    return kind(**raw)


def _lanes(raw: Any) -> dict[str, Lane]:
    try:
        return parse_lanes(json.dumps(raw))
    except ValueError as error:
        raise BadCase(f"lanes: {error}") from error


def _fault(raw: Any, where: str) -> Fault:
    if not isinstance(raw, dict):
        raise BadCase(f"{where}: must be an object")
    changed = dict(raw)
    try:
        changed["do"] = Deed(str(raw.get("do")))
    except ValueError as error:
        raise BadCase(f"{where}.do: must be one of {', '.join(Deed)}") from error
    at = raw.get("at_s", [])
    changed["at_s"] = tuple(at if isinstance(at, list) else [at])
    if "every_s" in raw:
        every = raw["every_s"]
        if not isinstance(every, list) or len(every) != 2 or any(map(_LASTS, every)) or every[0] > every[1]:  # noqa: PLR2004
            raise BadCase(f"{where}.every_s: must be two numbers, the shortest and the longest time between two")
        changed["every_s"] = tuple(every)
    found = _make(Fault, changed, where)
    if bool(found.at_s) == (found.every_s is not None):
        raise BadCase(f"{where}: say at_s or every_s")
    if any(map(_SECONDS, (*found.at_s, found.for_s))):
        raise BadCase(f"{where}: at_s and for_s are seconds, {LONGEST_S:g} at most")
    return found


def _targets(deed: Deed, case: Case) -> set[str]:
    """What a deed may be done to."""
    roles = {*ROLES, *(f"dispatch-{lane}" for lane in case.lanes)}
    if deed in PROCESS:
        return {*roles, *SERVICES, *case.nodes}
    if deed in REDIS_ONLY:
        return {"redis"}
    if deed is Deed.CLOCK:
        return {*roles, "redis"}
    if deed is Deed.STALL:  # requests that a network holds, then delivers all at once, no caller keeps apart
        return {*SERVICES, *case.nodes}
    return {*LINKS, *case.nodes}


def _check_ms(fault: Fault, where: str) -> None:
    if not isinstance(fault.ms, int) or isinstance(fault.ms, bool):
        raise BadCase(f"{where}.ms: must be a whole number of milliseconds")
    if fault.do is Deed.CLOCK:
        if not 0 < abs(fault.ms) <= FURTHEST_MS:
            raise BadCase(f"{where}.ms: a clock jumps by 1 to {FURTHEST_MS} ms, ahead or (negative) back")
    elif fault.ms < 0:
        raise BadCase(f"{where}.ms: only a clock goes back")


def _check_of(case: Case, fault: Fault, where: str) -> None:
    if not fault.of:
        return
    callers = [name for lane in case.lanes for name in case.workers_of(f"dispatch-{lane}")]
    if fault.of not in callers:
        raise BadCase(f"{where}.of: must be one of {', '.join(callers)}")
    if fault.do not in NETWORK or fault.what not in OWN_LINKS:
        raise BadCase(
            f"{where}.of: one worker has links of its own to {' and '.join(OWN_LINKS)}, for the network's deeds"
        )


def _check_stack(case: Case) -> None:
    if case.stack == "embedded" and case.kafka_nodes > 1:
        raise BadCase("kafka_nodes: the embedded broker is one")
    if case.stack == "embedded" and case.workload.transactions:
        raise BadCase("workload.transactions: the embedded broker knows none")


def check(case: Case) -> None:
    """Whether its fields go together. Raises BadCase naming the field."""
    if case.accepts_within_s and not case.workload.http:
        raise BadCase("accepts_within_s: nothing is asked over HTTP; say workload.http")
    if case.at_failpoints and case.faults:
        raise BadCase("faults: there are none beside at_failpoints")
    _check_stack(case)
    for place, fault in enumerate(case.faults):
        targets = _targets(fault.do, case)
        _check_of(case, fault, f"faults.{place}")
        _check_ms(fault, f"faults.{place}")
        if fault.what not in targets:
            raise BadCase(f"faults.{place}.what: {fault.do} takes one of {', '.join(sorted(targets))}")
        if case.stack == "embedded" and (fault.what == "kafka" and (fault.do is not Deed.STOP or fault.do in NETWORK)):
            raise BadCase(f"faults.{place}: the embedded broker forgets all when it dies, and has no proxy")
    if unknown := set(case.workers) - {*ROLES, *(f"dispatch-{lane}" for lane in case.lanes)}:
        raise BadCase(f"workers: {min(unknown)} is no role")
    schedule(case)
