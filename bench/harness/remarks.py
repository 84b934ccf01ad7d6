"""What a reader has to know beside the figures: nothing is left out in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.harness.contenders import CONTENDERS, OS_WRITE, THREADS
from bench.harness.figures import figures_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.harness.jobs import Job
    from bench.harness.results import Result, Run


def remarks(result: Result, job: Job) -> list[str]:
    """Say who did not take part and why, what could not be had, and how noisy it was."""
    said = _missing(result, job)
    said += [f"Not measured here: {job.left_out}."] * bool(job.left_out)
    found = {cell: figures_of(result, job, cell) for cell in job.cells}
    for cell, figures in found.items():
        where = f" ({cell.name})" if len(job.cells) > 1 else ""
        for name, figure in figures.items():
            if figure.client_cpu is not None and cell.pattern != "uploads":  # there it is a column
                spent = f"{figure.client_cpu.median:.2f} CPU s/GiB"
                said.append(f"{name}{where}: the client used {spent}, with its start-up.")
    runs = [run for run in result.runs if run.job == job.name]
    took_part = dict.fromkeys(run.contender for run in runs)
    said += [f"{name}: {note}." for name in took_part if (note := CONTENDERS[name].note)]
    said += dict.fromkeys(note for run in runs for note in _downgrades(run))
    known = [figure for figures in found.values() for figure in figures.values()]
    disturbed = sum(figure.disturbed for figure in known)
    unrested = sum(figure.unrested for figure in known)
    if result.settings.memory == "as-is" and any(run.contender == OS_WRITE for run in runs):
        said.append(
            "Free memory was left as it was. In a virtual machine its host may have to grant it "
            "first, and os.write is then slower than on a machine in use: --memory in-use."
        )
    if disturbed:
        said.append(
            f"{disturbed} of {len(runs)} runs were disturbed: other processes used more "
            "than a tenth of the CPUs meanwhile."
        )
    if unrested:
        said.append(
            f"{unrested} of {len(runs)} runs began while the disk was still busy with "
            "something else."
        )
    return said


def _missing(result: Result, job: Job) -> list[str]:
    """Give each reason once, with all whom it keeps out."""
    kept_out: dict[str, list[str]] = {}
    for name, why in result.missing.get(job.name, {}).items():
        kept_out.setdefault(why, []).append(CONTENDERS[name].title)
    return [f"{'; '.join(titles)}: not here, {why}." for why, titles in kept_out.items()]


def _downgrades(run: Run) -> Iterator[str]:
    """Find what a contender says it could not have."""
    facts: dict[str, Any] = run.measurement.facts
    receipt = facts.get("receipt", facts)
    name = run.contender
    if name == THREADS or CONTENDERS[name].kind == "without":  # it is what was asked for
        return
    if receipt.get("direct") is False:
        yield f"{name}: written through the page cache, not direct."
    if receipt.get("backend") == "threads":
        yield f"{name}: written by worker threads, not io_uring."
    if receipt.get("registered") is False:
        yield f"{name}: the slots were not registered."
    if "uring" not in facts.get("context", "io_uring"):
        yield f"{name}: it ran on {facts['context']}, not io_uring."
    for note in facts.get("notes", []):
        yield f"{name}: {note}."
