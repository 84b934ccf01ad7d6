"""The jobs: what is written, who writes it, and over whom the ratios are taken.

Sizes are chosen so that all of it takes about half an hour with five rounds on a disk that takes
2 GiB/s: 2 GiB where the headline is, half a GiB or less elsewhere. The quick ones are for a look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from bench.harness import contenders as known
from bench.harness.cell import Cell
from bench.harness.contenders import WRITERS
from bench.harness.units import GIB, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Unit = Literal["MiB/s", "writes/s", "uploads/s"]
"""What a rate is given in: bytes where blocks are big, writes or uploads where each is work."""


@dataclass(frozen=True, slots=True)
class Job:
    """Cells that the same contenders write.

    `over` names the references of ratios, the main one first; `left_out` says what is not measured
    and why.
    """

    name: str
    title: str
    unit: Unit
    over: tuple[str, ...]
    contenders: tuple[str, ...]
    cells: tuple[Cell, ...]
    left_out: str = ""

    def cell(self, name: str) -> Cell:
        """Find a cell by its name."""
        return next(cell for cell in self.cells if cell.name == name)


def _depths(blocks: Iterable[tuple[int, int]], depths: Iterable[int]) -> tuple[Cell, ...]:
    """Cross (block, size) pairs with depths."""
    return tuple(Cell("fresh", size, block, depth) for block, size in blocks for depth in depths)


LIBRARIES = tuple(name for name, found in WRITERS.items() if found.kind == "library")
PLAIN = tuple(name for name, found in WRITERS.items() if found.kind == "plain")
ABLATIONS = tuple(name for name, found in WRITERS.items() if found.kind == "without")
REFERENCES = (known.FIO, known.OS_WRITE)


def all_jobs(*, quick: bool) -> dict[str, Job]:
    """Make every job, in the order in which they run, in full or for a quick look."""
    jobs = (
        Job(
            "fresh",
            "Fresh file, durable",
            "MiB/s",
            REFERENCES,
            (
                known.FIO,
                "fio-libaio",
                known.SLOTS,
                "uringio-unsized",
                known.WRITE,
                known.THREADS,
                "uringd-tcp",
                "uringd-unix",
                "put-copy",
                "put-sealed",
                "put-slab",
                "put-slab-read-back",
                *PLAIN,
            ),
            (Cell("fresh", 512 * MIB if quick else 2 * GIB, MIB, 16),),
        ),
        Job(
            "peers",
            "Fresh file, durable, beside other Python libraries",
            "MiB/s",
            REFERENCES,
            (known.FIO, known.SLOTS, known.WRITE, *PLAIN, *LIBRARIES),
            (
                Cell("fresh", 128 * MIB, MIB, 16),
                Cell("fresh", 128 * MIB, 4 * MIB, 16),
            )
            if quick
            else (
                Cell("fresh", 256 * MIB, 64 * KIB, 16),
                Cell("fresh", 512 * MIB, MIB, 16),
                Cell("fresh", 512 * MIB, 4 * MIB, 16),
            ),
        ),
        Job(
            "depths",
            "Fresh file, durable, by block size and queue depth",
            "MiB/s",
            (known.FIO,),
            (known.FIO, known.SLOTS),
            _depths([(64 * KIB, 64 * MIB), (MIB, 128 * MIB), (4 * MIB, 128 * MIB)], (1, 16))
            if quick
            else _depths(
                [
                    (64 * KIB, 256 * MIB),
                    *((block, 512 * MIB) for block in (256 * KIB, MIB, 4 * MIB)),
                ],
                (1, 4, 16, 32),
            ),
        ),
        Job(
            "overwrite",
            "Overwrite of a file that is there, durable",
            "MiB/s",
            REFERENCES,
            (known.FIO, "fio-libaio", known.PWRITE, *PLAIN, *LIBRARIES),
            (Cell("overwrite", 128 * MIB if quick else 512 * MIB, MIB, 16),),
        ),
        Job(
            "random",
            "Random overwrite, durable at the end",
            "writes/s",
            REFERENCES,
            (
                known.FIO,
                known.FIO_DEEP,
                "fio-libaio",
                known.PWRITE,
                known.PWRITE_MANY,
                known.PWRITE_APART,
                "no-batching",
                *PLAIN,
                *LIBRARIES,
            ),
            (Cell("random", 32 * MIB if quick else 128 * MIB, 4 * KIB, 128),),
        ),
        Job(
            "latency",
            "Latency of a write",
            "writes/s",
            (known.FIO,),
            (known.FIO, "fio-libaio", known.PWRITE, *PLAIN, *LIBRARIES),
            (
                Cell("overwrite", 256 * MIB if quick else GIB, MIB, 8, timed=True),
                Cell("random", 16 * MIB if quick else 128 * MIB, 4 * KIB, 32, timed=True),
            ),
        ),
        Job(
            "chain",
            "A log: each record durable before the next",
            "writes/s",
            (known.ONE_BY_ONE, known.FIO),
            (known.FIO, known.CHAIN, known.ONE_BY_ONE, known.OS_WRITE, "os-pwrite-direct"),
            (
                Cell("log", 4 * MIB if quick else 16 * MIB, 4 * KIB, 1),
                *(
                    Cell("log", 16 * MIB, 4 * KIB, logs, without=(known.FIO, *PLAIN))
                    for logs in (() if quick else (4, 32))
                ),
            ),
        ),
        Job(
            "ablation",
            "Fresh file with one of our own choices switched off at a time",
            "MiB/s",
            (known.SLOTS,),
            (known.SLOTS, "uringio-unsized", *ABLATIONS),
            (
                Cell("fresh", 128 * MIB if quick else GIB, MIB, 16),
                # 64 slots: with 16 the pool would be smaller than a huge page.
                Cell("fresh", 64 * MIB if quick else 256 * MIB, 64 * KIB, 64),
            ),
        ),
    )
    return {job.name: job for job in jobs}


def select_jobs(
    jobs: Iterable[Job],
    names: Collection[str] = (),
    only: Collection[str] = (),
    size_bytes: int | None = None,
) -> tuple[Job, ...]:
    """Take some jobs, some contenders of theirs, with another size of all files if one is given.

    A job that is left without contenders is left out.
    """
    found = []
    for job in jobs:
        contenders = tuple(name for name in job.contenders if not only or name in only)
        cells = tuple(cell.of_size(size_bytes or cell.size_bytes) for cell in job.cells)
        if contenders and (not names or job.name in names):
            found.append(replace(job, contenders=contenders, cells=cells))
    return tuple(found)
