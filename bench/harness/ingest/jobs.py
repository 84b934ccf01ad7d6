"""The jobs: a size of upload each, and in its cells the connections that it comes over.

All sizes by all connections by all contenders would be 500 measurements a round. What is measured
is chosen so that five rounds take half an hour on a disk that takes 2 GiB/s, and each job says what
it leaves out. The bytes of a cell are bounded: uploads for a second or so at the speed of the disk.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.harness.cell import Cell
from bench.harness.ingest import contenders as known
from bench.harness.jobs import Job
from bench.harness.units import GIB, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Collection

Who = tuple[str, ...]

OURS: Who = (known.TCP, known.UNIX)
MEMORY: Who = (known.COPY, known.SEALED, known.SLAB)

BIG = Job(
    "2g",
    "One upload of 2 GiB",
    "MiB/s",
    (known.DISK, known.NGINX_SYNCED),
    (
        known.DISK,
        *OURS,
        *MEMORY,
        known.RECV,
        known.NGINX_SYNCED,
        known.NGINX,
        known.RSYNC,
        known.STARLETTE_SYNCED,
        known.STARLETTE,
        known.TUS_SYNCED,
        known.TUS,
    ),
    (),
    "more than one connection: it would be more bytes of the same; one worker of nginx: one "
    "connection has no more",
)
LARGE = Job(
    "64m",
    "Uploads of 64 MiB",
    "MiB/s",
    (known.DISK, known.NGINX_SYNCED),
    (
        known.DISK,
        *OURS,
        known.RECV,
        known.NGINX_SYNCED,
        known.RSYNC,
        known.STARLETTE_SYNCED,
        known.TUS_SYNCED,
    ),
    (),
    "1 connection: as with 2 GiB; 16, 64 and 256: 1, 4 and 16 GiB a run",
)
MEDIUM = Job(
    "1m",
    "Uploads of 1 MiB",
    "MiB/s",
    (known.NGINX_SYNCED,),
    (
        *OURS,
        known.SMALL,
        known.WORKERS,
        known.RECV,
        known.NGINX_SYNCED,
        known.NGINX_ONE_SYNCED,
        known.RSYNC,
        known.STARLETTE_SYNCED,
    ),
    (),
    "1 connection; those who are not beside us at 16 and 64, for time's sake; rsync at 256, which "
    "is 768 processes",
)
SMALL = Job(
    "64k",
    "Uploads of 64 KiB",
    "uploads/s",
    (known.LOOP, known.WRK),
    (
        *OURS,
        known.SMALL,
        known.PIPELINED,
        known.SMALL_WORKERS,
        known.LOOP,
        known.RECV,
        known.NGINX_SYNCED,
        known.NGINX,
        known.NGINX_ONE,
        known.WRK,
        known.RSYNC,
        known.STARLETTE_SYNCED,
        known.STARLETTE,
    ),
    (),
    "other connections than 64: uploads of 4 KiB have them; tuspyserver, for time's sake",
)
TINY = Job(
    "4k",
    "Uploads of 4 KiB",
    "uploads/s",
    (known.LOOP, known.WRK),
    (*SMALL.contenders, known.TUS_SYNCED),
    (),
    "those who are not beside us at every number of connections, for time's sake; tuspyserver but "
    "at 1, where it takes several ms for each",
)


def ingest_jobs(*, quick: bool) -> dict[str, Job]:
    """Make every job, in the order in which they run, in full or for a quick look."""
    jobs = (
        _with(BIG, _cell(BIG, 256 * MIB if quick else 2 * GIB, 1, 1)),
        _with(LARGE, _cell(LARGE, 64 * MIB, 4, 4 if quick else 8)),
        _with(
            MEDIUM,
            _cell(MEDIUM, MIB, 4, 256),
            _cell(MEDIUM, MIB, 16, 256, MEDIUM_AT_ENDS),
            _cell(MEDIUM, MIB, 64, 256, MEDIUM_AT_ENDS),
            _cell(MEDIUM, MIB, 256, 512, {known.RSYNC}),
        ),
        _with(SMALL, _cell(SMALL, 64 * KIB, 64, 1024 if quick else 2048)),
        _with(
            TINY,
            _cell(TINY, 4 * KIB, 1, 512, {*TINY_AT_64, known.SMALL_WORKERS} - {known.RSYNC}),
            *[_cell(TINY, 4 * KIB, 4, 1024, {*TINY_AT_64, *TINY_AT_ENDS})] * (not quick),
            *[_cell(TINY, 4 * KIB, 16, 1024, {*TINY_AT_64, *TINY_AT_ENDS})] * (not quick),
            _cell(TINY, 4 * KIB, 64, 2048, {known.TUS_SYNCED}),
            *[_cell(TINY, 4 * KIB, 256, 2048, {*TINY_AT_64, known.TUS_SYNCED})] * (not quick),
        ),
    )
    return {job.name: job for job in jobs}


MEDIUM_AT_ENDS = {known.RSYNC, known.STARLETTE_SYNCED, known.NGINX_ONE_SYNCED, known.WORKERS}
"""Who is measured at the fewest and at the most connections only."""
TINY_AT_ENDS = {known.PIPELINED, known.SMALL_WORKERS, known.TUS_SYNCED}
TINY_AT_64 = {
    known.UNIX,
    known.NGINX_SYNCED,
    known.NGINX_ONE,
    known.WRK,
    known.RSYNC,
    known.STARLETTE_SYNCED,
    known.STARLETTE,
}
"""Who is measured at 64 connections only, but rsync at 1 too."""


def _cell(job: Job, size: int, connections: int, count: int, without: Collection[str] = ()) -> Cell:
    left_out = tuple(name for name in job.contenders if name in without)
    return Cell("uploads", size * count, size, connections, timed=True, without=left_out)


def _with(job: Job, *cells: Cell) -> Job:
    return replace(job, cells=cells)
