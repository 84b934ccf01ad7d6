"""The units of a job's figures: bytes where they are big, writes or uploads where each is work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.harness.units import GIB, MIB

if TYPE_CHECKING:
    from bench.harness.cell import Cell
    from bench.harness.jobs import Job


@dataclass(frozen=True, slots=True)
class Scale:
    """Factors from MiB/s and CPU s/GiB, the names of what comes out, and the digits of a rate."""

    rate: float
    rate_name: str
    rate_digits: int
    cpu: float
    cpu_name: str
    cpu_digits: int


def scale_of(job: Job, cell: Cell) -> Scale:
    """Choose the units for a cell of a job."""
    if job.unit == "MiB/s":
        return Scale(1, "MiB/s", 0, 1, "CPU s/GiB", 2)
    if job.unit == "uploads/s":
        rate, cpu = MIB / cell.block_bytes, cell.block_bytes / GIB * 1e6
        return Scale(rate, "uploads/s", 0, cpu, "CPU us/upload", 0)
    thousands = MIB / cell.block_bytes / 1000
    return Scale(thousands, "1,000 writes/s", 1, cell.block_bytes / GIB * 1e6, "CPU us/write", 1)
