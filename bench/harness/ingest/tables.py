"""The tables of uploads: one for each cell, durable or not in the first column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.harness.contenders import CONTENDERS
from bench.harness.figures import figures_of
from bench.harness.method import cell_text
from bench.harness.scale import scale_of
from bench.harness.tables import NOTHING, SHORT, Sheet, ratio_text, spread_text
from bench.harness.units import MIB

if TYPE_CHECKING:
    from bench.harness.cell import Cell
    from bench.harness.figures import CellFigures, Figures, Spread
    from bench.harness.jobs import Job
    from bench.harness.results import Result
    from bench.harness.tables import CellText

PERCENTILES = ("50", "99")
MILLISECOND_US = 1000


def sheets_of(result: Result, job: Job) -> list[Sheet]:
    """Make the table of each cell that has runs."""
    found = {cell: figures_of(result, job, cell) for cell in job.cells}
    return [_sheet(job, cell, figures) for cell, figures in found.items() if figures]


def _sheet(job: Job, cell: Cell, figures: CellFigures) -> Sheet:
    scale = scale_of(job, cell)
    columns = ["durable", *(f"x {SHORT.get(name, name)}" for name in job.over), scale.rate_name]
    columns += [scale.cpu_name, "kernel threads", "client", "RSS MiB"]
    columns += [f"p{name} ms" for name in PERCENTILES]
    return Sheet(
        cell_text(cell), columns, {name: _row(job, cell, name, figures[name]) for name in figures}
    )


def _row(job: Job, cell: Cell, name: str, found: Figures) -> list[CellText]:
    scale = scale_of(job, cell)
    return [
        ("yes" if CONTENDERS[name].survives else "no", ""),
        *(ratio_text(found.over.get(over)) for over in job.over),
        spread_text(found.rate.times(scale.rate), scale.rate_digits),
        spread_text(found.cpu.times(scale.cpu), scale.cpu_digits),
        *(
            _median(cost and cost.times(scale.cpu), scale.cpu_digits)
            for cost in (found.kworkers, found.client_cpu)
        ),
        (NOTHING if found.rss_bytes is None else f"{found.rss_bytes / MIB:.0f}", ""),
        *(_milliseconds(found.latency_us.get(percentile)) for percentile in PERCENTILES),
    ]


def _median(spread: Spread | None, digits: int) -> CellText:
    return (NOTHING if spread is None else f"{spread.median:.{digits}f}"), ""


def _milliseconds(latency_us: Spread | None) -> CellText:
    if latency_us is None:
        return NOTHING, ""
    found = latency_us.times(1 / MILLISECOND_US)
    return spread_text(found, 1 if found.median >= 1 else 2)
