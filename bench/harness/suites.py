"""The suites: each is a set of jobs with its own method, tables, pictures and demands.

They share everything else: rounds, the state before each measurement, the meter, figures, results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.harness import acceptance, method, plot, tables
from bench.harness.ingest import acceptance as ingest_acceptance
from bench.harness.ingest import method as ingest_method
from bench.harness.ingest import plot as ingest_plot
from bench.harness.ingest import tables as ingest_tables
from bench.harness.ingest.jobs import ingest_jobs
from bench.harness.jobs import all_jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.harness.acceptance import Verdict
    from bench.harness.canvas import Canvas
    from bench.harness.environment import Environment
    from bench.harness.jobs import Job
    from bench.harness.results import Result, Settings
    from bench.harness.tables import Sheet


@dataclass(frozen=True, slots=True)
class Suite:
    """A set of jobs. `command` is how it is run, `acceptance` the name of its block of demands."""

    name: str
    command: str
    acceptance: str
    jobs: Callable[[bool], dict[str, Job]]
    method: Callable[[Settings, Environment], list[str]]
    sheets: Callable[[Result, Job], list[Sheet]]
    pictures: Callable[[Result], dict[str, Canvas]]
    pictures_of: Callable[[Job], list[str]]
    judge: Callable[[Result], list[Verdict]]


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "library",
            "make bench",
            "acceptance",
            lambda quick: all_jobs(quick=quick),
            method.method_lines,
            tables.sheets_of,
            plot.pictures,
            plot.picture_names,
            acceptance.judge,
        ),
        Suite(
            "ingest",
            "make bench-ingest",
            "ingest-acceptance",
            lambda quick: ingest_jobs(quick=quick),
            ingest_method.method_lines,
            ingest_tables.sheets_of,
            ingest_plot.pictures,
            ingest_plot.picture_names,
            ingest_acceptance.judge,
        ),
    )
}


def suite_of(result: Result) -> Suite:
    """Find the suite that a result is of."""
    return SUITES[result.settings.suite]


def save_pictures(result: Result, folder: Path, suffix: str = ".svg") -> dict[str, Path]:
    """Draw all pictures into a folder; the result is where each one is. Raises CannotRunError."""
    paths = {}
    for name, canvas in suite_of(result).pictures(result).items():
        paths[name] = folder / f"{name}{suffix}"
        canvas.save(paths[name])
    return paths
