"""jobs.py: what is written and by whom."""

import pytest

from bench.harness.contenders import CONTENDERS
from bench.harness.jobs import all_jobs, select_jobs
from bench.harness.suites import SUITES
from bench.harness.units import GIB, KIB, MIB


@pytest.mark.parametrize("quick", [True, False])
def test_every_job_can_be_told_apart_cut_into_blocks_and_compared(*, quick: bool) -> None:
    for name, job in all_jobs(quick=quick).items():
        assert job.name == name
        assert set(job.contenders) <= set(CONTENDERS)
        assert set(job.over) <= set(job.contenders)
        assert len({cell.name for cell in job.cells}) == len(job.cells)
        assert all(cell.size_bytes % cell.block_bytes == 0 for cell in job.cells)


def test_every_contender_takes_part_somewhere() -> None:
    jobs = [job for suite in SUITES.values() for job in suite.jobs(False).values()]
    assert {name for job in jobs for name in job.contenders} == set(CONTENDERS)


def test_the_full_comparison_covers_what_it_says() -> None:
    jobs = all_jobs(quick=False)
    assert jobs["fresh"].cells[0].size_bytes == 2 * GIB
    depths = {(cell.block_bytes, cell.depth) for cell in jobs["depths"].cells}
    assert {(64 * KIB, 1), (64 * KIB, 32), (4 * MIB, 1), (4 * MIB, 32)} <= depths
    assert {cell.block_bytes for cell in jobs["peers"].cells} >= {MIB, 4 * MIB}


def test_uploads_have_one_source_and_so_one_cell() -> None:
    uploading = [
        job
        for job in all_jobs(quick=False).values()
        if any(CONTENDERS[name].uploads for name in job.contenders)
    ]
    assert [len(job.cells) for job in uploading] == [1]


def test_jobs_contenders_and_a_size_can_be_chosen() -> None:
    jobs = all_jobs(quick=False).values()
    (job,) = select_jobs(jobs, names=["random"], only=["fio", "os-write"], size_bytes=MIB)
    assert job.name == "random"
    assert job.contenders == ("fio", "os-write")
    assert {cell.size_bytes for cell in job.cells} == {MIB}


def test_a_job_without_contenders_is_left_out() -> None:
    jobs = all_jobs(quick=False).values()
    assert [job.name for job in select_jobs(jobs, only=["uringio-chain"])] == ["chain"]
