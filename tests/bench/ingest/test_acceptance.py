"""acceptance.py: what is asked of uringd as a server, and whether a result has it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.harness.cell import Cell
from bench.harness.ingest import contenders as known
from bench.harness.ingest.acceptance import DEMANDS, judge
from bench.harness.ingest.jobs import ingest_jobs
from bench.harness.results import Result
from bench.harness.units import GIB, MIB

if TYPE_CHECKING:
    from bench.harness.acceptance import Verdict
    from tests.bench.conftest import MakeResult

BIG = Cell("uploads", 2 * GIB, 2 * GIB, 1, timed=True)


def verdict(result: Result, figure: str) -> Verdict:
    (found,) = (verdict for verdict in judge(result) if verdict.figure.startswith(figure))
    return found


@pytest.mark.parametrize("quick", [True, False])
def test_every_demand_is_about_a_cell_that_is_measured(*, quick: bool) -> None:
    jobs = ingest_jobs(quick=quick)
    for asked in DEMANDS:
        job = jobs[asked.job]
        cells = {cell.depth: cell for cell in job.cells}
        for name, depth in (
            (asked.ours, asked.connections),
            (asked.theirs, asked.over_connections or asked.connections),
        ):
            assert not name or name in job.contenders
            assert name not in cells[depth].without
        assert (asked.at_least is None) != (asked.at_most is None)


@pytest.mark.parametrize(("seconds", "met"), [(1.0, True), (1.2, False)])
def test_a_rate_is_judged_within_rounds(
    make_result: MakeResult, seconds: float, *, met: bool
) -> None:
    times = {known.DISK: [1.0, 1.0, 9.0], known.TCP: [seconds, seconds, 1.0]}
    found = verdict(make_result(times, job="2g", cell=BIG), "2 GiB over TCP loopback")
    assert found.met is met
    assert found.measured is not None
    assert found.measured.high == 9


@pytest.mark.parametrize(("system_s", "met"), [(0.6, True), (0.9, False)])
def test_a_cost_is_that_of_the_server_for_a_gib(
    make_result: MakeResult, system_s: float, *, met: bool
) -> None:
    result = make_result({known.TCP: [1.0]}, job="2g", cell=BIG, user_s=0.1, system_s=system_s)
    found = verdict(result, "server CPU s/GiB of 2 GiB over TCP")
    assert found.met is met
    assert found.measured is not None
    assert found.measured.median == pytest.approx((0.1 + system_s) / 2)


@pytest.mark.parametrize(("many_s", "met"), [(2.1, True), (2.5, False)])
def test_many_connections_are_judged_by_bytes_over_few(
    make_result: MakeResult, many_s: float, *, met: bool
) -> None:
    few, many = (
        Cell("uploads", size * MIB, MIB, connections, timed=True)
        for size, connections in ((256, 4), (512, 256))
    )
    result = make_result({known.TCP: [1.0]}, job="1m", cell=few)
    other = make_result({known.TCP: [many_s]}, job="1m", cell=many)
    (job,) = result.settings.jobs
    settings = replace(result.settings, jobs=(replace(job, cells=(few, many)),))
    both = Result(settings, result.environment, [], result.runs + other.runs)
    assert verdict(both, "throughput of 1 MiB").met is met


def test_what_was_not_measured_is_neither_met_nor_not(make_result: MakeResult) -> None:
    found = judge(make_result({known.RECV: [1.0]}, job="2g", cell=BIG))
    assert {verdict.met for verdict in found} == {None}
