"""acceptance.py: what is asked, and whether a result has it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.harness.acceptance import DEMANDS, Verdict, judge, markdown_lines, merged_lines
from bench.harness.jobs import all_jobs
from tests.bench.conftest import CELL

if TYPE_CHECKING:
    from bench.harness.results import Result
    from tests.bench.conftest import MakeResult


def verdict(result: Result, figure: str) -> Verdict:
    (found,) = (verdict for verdict in judge(result) if verdict.figure.startswith(figure))
    return found


@pytest.mark.parametrize("quick", [True, False])
def test_every_demand_is_about_a_cell_that_is_measured(*, quick: bool) -> None:
    jobs = all_jobs(quick=quick)
    for demand in DEMANDS:
        job = jobs[demand.job]
        assert {demand.ours, demand.theirs} <= set(job.contenders)
        cells = [cell for cell in job.cells if cell.block_bytes == demand.block_bytes]
        told = [cell for cell in cells if demand.depth in {None, cell.depth}]
        # A quick run has not all depths: what is then not measured is said.
        assert len(told) == 1 or (quick and demand.depth and not told)
        assert (demand.at_least is None) != (demand.at_most is None)


@pytest.mark.parametrize(("seconds", "met"), [(1.0, True), (1.04, False)])
def test_a_rate_is_judged_by_the_median_of_its_ratios(
    make_result: MakeResult, seconds: float, *, met: bool
) -> None:
    result = make_result({"fio": [1.0, 1.0, 9.0], "uringio-slots": [seconds, seconds, 1.0]})
    found = verdict(result, "fresh file, 1 MiB")
    assert found.met is met
    assert found.measured is not None
    assert found.measured.high == 9


def test_how_near_a_hope_is_stands_beside_what_is_asked(make_result: MakeResult) -> None:
    result = make_result({"os-write": [2.72], "uringio-slots": [1.0]})
    found = verdict(result, "the same over os.write")
    assert found.met is True
    assert found.note == "85% of the 3.2 hoped for"


def test_a_cost_has_to_be_low(make_result: MakeResult) -> None:
    result = make_result({"fio": [1.0], "uringio-slots": [1.0], "os-write": [1.0]})
    assert verdict(result, "CPU s/GiB through slots, over fio's").met is True
    assert verdict(result, "CPU s/GiB through slots, over os.write's").met is False


@pytest.mark.parametrize(("ours", "met"), [(1.2, True), (1.3, False)])
def test_a_latency_is_judged_by_its_percentile(
    make_result: MakeResult, ours: float, *, met: bool
) -> None:
    cell = replace(CELL, timed=True)
    result = make_result({"fio": [1.0], "uringio-pwrite": [1.0]}, job="latency", cell=cell)
    for run, value in zip(result.runs, (1.0, ours), strict=True):
        run.measurement.facts["latency_us"] = {"99": value}
    assert verdict(result, "p99 of a 1 MiB write").met is met


@pytest.mark.parametrize(("share", "met"), [(0.0, True), (0.5, False)])
def test_the_page_cache_is_judged_by_what_is_left_in_it(
    make_result: MakeResult, share: float, *, met: bool
) -> None:
    cached = int(CELL.size_bytes * share)
    result = make_result({"uringio-slots": [1.0]}, cached_bytes=cached)
    assert verdict(result, "page cache").met is met


def test_the_fastest_library_is_the_one_that_counts_and_what_was_done_for_it_is_said(
    make_result: MakeResult,
) -> None:
    seconds = {"uringio-slots": [1.0], "aiofiles": [3.0], "ayafileio-direct": [1.2]}
    result = make_result(seconds | {"os-write": [1.1]}, job="peers")
    found = verdict(result, "slots over the fastest Python library, 1 MiB")
    assert found.met is False
    assert "ayafileio" in found.note
    assert "O_DIRECT" in found.note
    alone = verdict(result, "the same, over the fastest that opens its file itself, 1 MiB")
    assert alone.met is True
    assert "aiofiles" in alone.note


def test_what_was_not_measured_is_neither_met_nor_not(make_result: MakeResult) -> None:
    found = judge(make_result({"os-write": [1.0]}))
    assert {verdict.met for verdict in found} == {None}
    lines = markdown_lines(found)
    assert len(lines) == 2 + len(found)
    assert all("not measured" in line for line in lines[2:])


def test_what_is_measured_again_is_written_over_its_rows_and_names_its_run(
    make_result: MakeResult,
) -> None:
    whole = markdown_lines(judge(make_result({"fio": [1.0], "uringio-slots": [1.0]})))
    again = judge(make_result({"fio": [2.0], "uringio-slots": [1.0]}))
    merged = merged_lines(["a machine", "", *whole], again, "of today")
    changed = [line for line in merged if "of today" in line]
    assert changed[0].startswith("| fresh file, 1 MiB") and "| 2.00 |" in changed[0]
    assert len(changed) == sum(verdict.met is not None for verdict in again)
    assert merged[:4] == ["a machine", "", *whole[:2]]
    assert merged_lines(["no table yet"], again, "of today") == ["no table yet"]
    with pytest.raises(ValueError, match="the table has no row for: fresh file"):
        merged_lines([*whole[:2], *whole[3:]], again, "of today")
