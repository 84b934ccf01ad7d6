"""What is asked of uringd as a server, and whether one result has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.harness.acceptance import verdict_of
from bench.harness.figures import cpu_s, paired, speed, spread_of
from bench.harness.ingest import contenders as known
from bench.harness.units import GIB

if TYPE_CHECKING:
    from bench.harness.acceptance import Verdict
    from bench.harness.cell import Cell
    from bench.harness.jobs import Job
    from bench.harness.results import Result

FLIGHT = 64
"""Connections of the cells by which small uploads are judged: 32 to 128 in flight."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Of one cell of a job: the throughput of `ours` over that of `theirs`, or what `ours` costs.

    `connections` tells the cell; `over_connections` that of `theirs` where it is another one.
    Without `theirs` it is CPU seconds of the server per GiB, io-wq workers included.
    """

    figure: str
    job: str
    connections: int
    ours: str
    theirs: str = ""
    over_connections: int | None = None
    at_least: float | None = None
    at_most: float | None = None

    def judge(self, result: Result) -> Verdict:
        """Look it up in a result."""
        found = None
        here = _cell(result, self.job, self.connections)
        there = _cell(result, self.job, self.over_connections or self.connections)
        if here and there:
            ours = result.runs_of(*here, self.ours)
            size_bytes = here[1].size_bytes
            if self.theirs:
                ratio = paired(ours, result.runs_of(*there, self.theirs), speed)
                found = ratio and ratio.times(size_bytes / there[1].size_bytes)
            else:
                spent = spread_of(ours, cpu_s)
                found = spent and spent.times(GIB / size_bytes)
        return verdict_of(self.figure, found, self.at_least, self.at_most)


def _cell(result: Result, job_name: str, connections: int) -> tuple[Job, Cell] | None:
    for job in result.settings.jobs:
        for cell in job.cells:
            if (job.name, cell.depth) == (job_name, connections):
                return job, cell
    return None


def _small(size: str, job: str, over_loop: float) -> tuple[Asked, ...]:
    """Ask of small uploads what is asked of each size."""
    over = "over a loop of write, fsync, rename, fsync of the directory"
    what = f"{size} uploads published per second, {FLIGHT} in flight"
    return (
        Asked(f"{what}, {over}", job, FLIGHT, known.PIPELINED, known.LOOP, at_least=over_loop),
        Asked(
            "the same over nginx PUT, not synced, by wrk with 32 connections",
            job,
            FLIGHT,
            known.PIPELINED,
            known.WRK,
            at_least=1.0,
        ),
    )


COSTS = ((known.TCP, "TCP", 0.40), (known.UNIX, "a Unix socket", 0.40), (known.SLAB, "slab", 0.06))

DEMANDS = (
    Asked(
        "2 GiB over TCP loopback, checked and published, over fio's disk rate",
        "2g",
        1,
        known.TCP,
        known.DISK,
        at_least=0.85,
    ),
    Asked("the same over a Unix socket", "2g", 1, known.UNIX, known.DISK, at_least=0.90),
    Asked("the same through slab", "2g", 1, known.SLAB, known.DISK, at_least=0.97),
    Asked(
        "2 GiB over TCP, over nginx PUT + sync",
        "2g",
        1,
        known.TCP,
        known.NGINX_SYNCED,
        at_least=2.5,
    ),
    *(
        Asked(
            f"server CPU s/GiB of 2 GiB over {what}",
            "2g",
            1,
            name,
            at_most=most,
        )
        for name, what, most in COSTS
    ),
    *_small("4 KiB", "4k", 3.0),
    *_small("64 KiB", "64k", 1.5),
    *(
        Asked(
            f"1 MiB uploads over {connections} connections, a request each, over nginx PUT + sync",
            "1m",
            connections,
            known.SMALL,
            known.NGINX_SYNCED,
            at_least=1.0,
        )
        for connections in (4, 16, 64)
    ),
    Asked(
        "throughput of 1 MiB uploads over 256 connections, over that of 4",
        "1m",
        256,
        known.TCP,
        known.TCP,
        over_connections=4,
        at_least=0.9,
    ),
)


def judge(result: Result) -> list[Verdict]:
    """Judge a result by all demands."""
    return [asked.judge(result) for asked in DEMANDS]
