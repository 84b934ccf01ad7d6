"""One picture for each job, by the shape of its cells, and one of the page cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.harness.plot_bars import draw_bars, draw_page_cache
from bench.harness.plot_lines import draw_depths, draw_latencies
from bench.harness.tables import CELLS_AS_ROWS

if TYPE_CHECKING:
    from bench.harness.canvas import Canvas
    from bench.harness.jobs import Job
    from bench.harness.results import Result

PAGE_CACHE = "page-cache"


def picture_names(job: Job) -> list[str]:
    """Name the pictures that belong to a job."""
    return [job.name, *[PAGE_CACHE] * (job.name == "fresh")]


def pictures(result: Result) -> dict[str, Canvas]:
    """Draw every job that has runs; by the name of its file without suffix.

    Raises CannotRunError where there is no matplotlib.
    """
    found = {}
    for job in result.settings.jobs:
        runs = [run for run in result.runs if run.job == job.name]
        if not runs:
            continue
        found[job.name] = _draw(result, job)
        if job.name == "fresh" and any(run.cached_bytes is not None for run in runs):
            found[PAGE_CACHE] = draw_page_cache(result, job)
    return found


def _draw(result: Result, job: Job) -> Canvas:
    if any(cell.timed for cell in job.cells):
        return draw_latencies(result, job)
    if len(job.cells) >= CELLS_AS_ROWS:
        return draw_depths(result, job)
    return draw_bars(result, job)
