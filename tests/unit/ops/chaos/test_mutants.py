"""Every mutant's text stands in the product, once, and its tests are there; what does not apply is told."""

from __future__ import annotations

import ast

import pytest

from ops.chaos import mutants
from ops.chaos.mutants import Gone, Mutant


@pytest.mark.parametrize("mutant", mutants.table(), ids=lambda mutant: mutant.name)
def test_it_applies_to_the_product_as_it_is_and_python_stays_a_program(mutant: Mutant) -> None:
    good = (mutants.ROOT / mutant.path).read_text()
    found = mutants.mutated(good, mutant)
    assert found != good
    if mutant.path.endswith(".py"):
        ast.parse(found)
    for path in mutant.tests.split():
        assert (mutants.ROOT / path).is_file()


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    names = [mutant.name for mutant in mutants.table()]
    assert len(set(names)) == len(names) >= 20


@pytest.mark.parametrize("text", ["nothing of it", "here and here"])
def test_a_text_that_is_gone_or_there_twice_is_told(text: str) -> None:
    mutant = Mutant(name="m", says="", path="p.py", old="here", new="there", tests="")
    with pytest.raises(Gone, match=r"m: its text stands (0|2) times in p\.py"):
        mutants.mutated(text, mutant)
