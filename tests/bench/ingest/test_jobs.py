"""jobs.py: what is uploaded, over how many connections, and who is beside us."""

import pytest

from bench.harness.contenders import CONTENDERS
from bench.harness.ingest.jobs import ingest_jobs
from bench.harness.units import GIB, KIB, MIB


@pytest.mark.parametrize("quick", [True, False])
def test_every_job_can_be_told_apart_and_compared(*, quick: bool) -> None:
    for name, job in ingest_jobs(quick=quick).items():
        assert job.name == name
        assert job.left_out
        assert set(job.over) <= set(job.contenders) <= set(CONTENDERS)
        assert len({cell.name for cell in job.cells}) == len(job.cells) > 0
        for cell in job.cells:
            assert cell.pattern == "uploads"
            assert cell.blocks >= cell.depth, "no connection has nothing to do"
            assert set(cell.without) < set(job.contenders)
            assert cell.size_bytes <= 2 * GIB


def test_the_full_comparison_has_every_size_and_every_number_of_connections() -> None:
    jobs = ingest_jobs(quick=False).values()
    cells = [cell for job in jobs for cell in job.cells]
    assert {cell.block_bytes for cell in cells} == {4 * KIB, 64 * KIB, MIB, 64 * MIB, 2 * GIB}
    tiny = {cell.depth for cell in cells if cell.block_bytes == 4 * KIB}
    assert tiny == {1, 4, 16, 64, 256}


def test_whoever_takes_part_in_a_job_is_in_a_cell_of_it() -> None:
    for job in ingest_jobs(quick=False).values():
        for name in job.contenders:
            assert any(name not in cell.without for cell in job.cells)
