"""contenders.py: every entry can be run and is told apart."""

import pkgutil
from dataclasses import replace

import pytest

from bench.harness.contenders import CONTENDERS
from tests.bench.conftest import CELL


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_contender_names_a_function_that_is_there(name: str) -> None:
    contender = CONTENDERS[name]
    assert contender.name == name
    assert callable(pkgutil.resolve_name(contender.run))


def test_titles_are_told_apart() -> None:
    assert len({contender.title for contender in CONTENDERS.values()}) == len(CONTENDERS)


def test_who_writes_into_the_page_cache_has_no_latency_to_be_compared() -> None:
    timed = replace(CELL, timed=True)
    assert "page cache" in (CONTENDERS["os-write"].why_not(timed) or "")
    assert CONTENDERS["os-write"].why_not(CELL) is None
    assert CONTENDERS["uringio-pwrite"].why_not(timed) is None
