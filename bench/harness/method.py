"""The method, said before the numbers and kept with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.harness.contenders import CONTENDERS
from bench.harness.units import rounds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.harness.cell import Cell
    from bench.harness.environment import Environment
    from bench.harness.jobs import Job
    from bench.harness.results import Settings


def method_lines(settings: Settings, environment: Environment) -> list[str]:
    """One sentence a line."""
    memory = "; then all free memory is filled with page cache" * (settings.memory == "in-use")
    text = f"""
{rounds_text(settings.rounds)} on {environment["file_system"]}: every contender runs once a round \
and cell, each round begins with another one, every run is a process of its own.
Before a run the last file is removed, everything is synced, and the device is waited for until \
it rests{memory}.
Ratios are taken within a round, then the median over the rounds; with it the lowest and highest.
CPU is user and system time of the process with its io-wq workers (of an upload: of the daemon; of \
fio: less its start-up); kernel threads of the whole machine (write-back, journal) are in a column \
of their own.
Page cache is what it holds of the file right after (mincore).
Content is random and known: every file but fio's is read back once and its checksum compared.
A file that is written into was written in full before, with other content, and is not cached.
Latency is from before the submission to the completion as the writer sees it (fio: its lat).
pwrite_many keeps 256 writes in flight, as always; fio with 256 is beside it. It has memory \
as fio has, a block for each write in flight, used again and again; or memory for each write.
What is switched off: a ring that registers nothing; prctl(PR_SET_THP_DISABLE); a reservation that \
does nothing; direct="never"; a ring that submits each operation by itself.
"""
    return text.strip().splitlines() + who_and_what(settings)


def who_and_what(settings: Settings) -> list[str]:
    """Say of each job what is written, and of each contender what its time and its answer mean."""
    lines = [f"{job.name}: {job.title} ({job_text(job)})." for job in settings.jobs]
    for name in settings.contenders():
        contender = CONTENDERS[name]
        lines.append(f"{name}: {contender.title}; time: {contender.timed}; {contender.durable}.")
    return lines


def job_text(job: Job) -> str:
    """Say what a job writes, cell by cell or in short."""
    if len(job.cells) <= TOLD_CELLS_MAX or job.cells[0].pattern == "uploads":
        return "; ".join(map(cell_text, job.cells))
    blocks = _from_to([size_text(cell.block_bytes) for cell in job.cells])
    depths = _from_to([str(cell.depth) for cell in job.cells])
    return f"{len(job.cells)} cells: blocks of {blocks}, depth {depths}"


TOLD_CELLS_MAX = 3


def cell_text(cell: Cell) -> str:
    """Say what is written: 2 GiB in blocks of 1 MiB, QD16."""
    if cell.pattern == "uploads":
        uploads = "1 upload" if cell.blocks == 1 else f"{cell.blocks:,} uploads"
        connections = "1 connection" if cell.depth == 1 else f"{cell.depth} connections"
        return f"{uploads} of {size_text(cell.block_bytes)} over {connections}"
    return (
        f"{size_text(cell.size_bytes)} in blocks of {size_text(cell.block_bytes)}, QD{cell.depth}"
    )


def _from_to(texts: Sequence[str]) -> str:
    return f"{texts[0]} to {texts[-1]}"


def environment_lines(environment: Environment) -> list[str]:
    """Say what the figures were measured on, without a word about where it stands."""
    said = environment
    memory = size_text(int(said["memory_bytes"]))
    disk = [f"{said['file_system']} ({said['mount_options']})", f"on {said['device']}"]
    if "device_model" in said:
        disk.append(
            f"({said['device_model']}, {said['write_cache']} cache, {said['scheduler']} scheduler, "
            f"requests up to {said['request_kib_max']} KiB in {said['segments_max']} segments)"
        )
    text = f"""
{said["date"]}, {said["kernel"]}, {said["cpu_count"]} CPUs ({said["cpu"]}, governor \
{said["governor"]}), {memory} of memory, huge pages: {said["huge_pages"]}, load {said["load"]}.
{" ".join(disk)}.
Python {said["python"]}, trio {said["trio"]}, cffi {said["cffi"]}, liburing {said["liburing"]}, \
{said["fio"]}, uringio {said["uringio"]} (commit {said["commit"]}).
"""
    return text.strip().splitlines()
