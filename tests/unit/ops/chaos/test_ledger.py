"""The ledger counts what the evidence holds, and says which promise was broken, where and how."""

from __future__ import annotations

from ops.chaos.checker import PROMISES, Violation, check
from ops.chaos.history import Entry, Kind
from ops.chaos.ledger import Ledger, recoveries
from tests.unit.ops.chaos.world import LANE, S, healthy


def fault(kind: Kind, at_s: float, deed: str) -> Entry:
    return Entry(kind=kind, at_ns=int(at_s * S), actor="injector", of=f"{deed}-{at_s}", data={"deed": deed})


def test_a_good_run_is_counted_and_every_promise_kept() -> None:
    evidence = healthy().evidence()
    ledger = Ledger()
    faults = [fault(Kind.FAULT, 1, "kill sink"), fault(Kind.HEAL, 2, "kill sink")]
    for _ in range(2):
        ledger.add("one", evidence, faults, check(evidence))
    assert ledger.holds
    text = "\n".join(ledger.lines())
    assert sum(line.endswith(" kept") for line in ledger.lines()) == len(PROMISES)
    assert "BROKEN" not in text
    assert (ledger.runs, ledger.faults["kill sink"]) == (2, 2)
    assert ledger.calls == 2 * len(evidence.arrivals)
    assert ledger.completed == 2 * sum(1 for charge in evidence.charges if charge.approved) == ledger.charges
    assert f"one/{LANE} 1 of" in text or f"one/{LANE} 2 of" in text


def test_what_is_broken_is_told_three_times_at_most_and_counted_all() -> None:
    ledger = Ledger()
    evidence = healthy().evidence()
    ledger.add("one", evidence, [], [Violation("nothing-lost", f"p{number}", "gone") for number in range(5)])
    ledger.add("two", evidence, [], [Violation("failpoints", "x", "was never reached")])
    assert not ledger.holds
    text = "\n".join(ledger.lines())
    assert "5 BROKEN" in text
    assert text.count("one: nothing-lost:") == 3
    assert "two: failpoints: x was never reached" in text


def test_recovery_is_the_longest_wait_of_a_lane_that_had_something_to_do() -> None:
    """A payment was asked for at 30 s and called at once, then two and four seconds later; over soon after that."""
    evidence = healthy().evidence()
    calls = sorted(each.at_ns for each in evidence.arrivals if each.payment_id == evidence.arrivals[1].payment_id)
    assert len(calls) == 3
    heal = (calls[0] + calls[1]) / 2 / S
    found = recoveries(evidence, [fault(Kind.HEAL, heal, "flush redis"), fault(Kind.HEAL, 10_000, "kill sink")])
    assert found == {"flush redis": (calls[1] - int(heal * S)) / S}
