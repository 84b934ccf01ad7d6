"""contenders.py: every entry can be run and is told apart."""

import pkgutil

import pytest

from bench.harness.contenders import CONTENDERS, REFERENCES


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_contender_names_a_function_that_is_there(name: str) -> None:
    contender = CONTENDERS[name]
    assert contender.name == name
    assert callable(pkgutil.resolve_name(contender.run))


def test_titles_are_told_apart_and_references_take_part() -> None:
    assert len({contender.title for contender in CONTENDERS.values()}) == len(CONTENDERS)
    assert set(REFERENCES) <= set(CONTENDERS)
