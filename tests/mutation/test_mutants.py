"""The list of mutants, held against the code it is about."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mutation.mutants import MUTANTS

if TYPE_CHECKING:
    from tests.mutation.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_finds_its_line_once_and_its_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    for name in mutant.tests:
        assert (ROOT / name).is_file()


def test_no_two_mutants_have_one_name() -> None:
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
