"""Tables: the same rows for a terminal and for Markdown, ratios first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.harness.contenders import CONTENDERS
from bench.harness.figures import figures_of
from bench.harness.method import cell_text
from bench.harness.scale import scale_of
from bench.harness.units import MIB

if TYPE_CHECKING:
    from bench.harness.cell import Cell
    from bench.harness.figures import CellFigures, Figures, Spread
    from bench.harness.jobs import Job
    from bench.harness.results import Result

NOTHING = "-"
TWO_DIGITS = 10
"""From here on a ratio has one decimal: the second would say nothing."""
CELLS_AS_ROWS = 4
"""A job with so many cells has a table with a row for each, not a table for each."""

SHORT = {"os-write": "os.write", "uringio-slots": "slots", "uringio-one-by-one": "one by one"}
"""What a reference is called in the head of a column."""
NARROW = {
    "kernel threads": "kernel",
    "page cache": "cache",
    "1,000 writes/s": "1000/s",
    "RSS MiB": "RSS",
}
"""Heads for a terminal of 80 columns, where a column is as wide as its figures."""

CellText = tuple[str, str]
"""A median, and the lowest and highest value, or nothing, where there is no more to say."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table. The first column has names, which a terminal shows and Markdown spells out."""

    caption: str
    columns: list[str]
    rows: dict[str, list[CellText]]


def sheets_of(result: Result, job: Job) -> list[Sheet]:
    """Make the tables of a job; none where nobody has run."""
    found = {cell: figures_of(result, job, cell) for cell in job.cells}
    known = {cell: figures for cell, figures in found.items() if figures}
    if len(job.cells) >= CELLS_AS_ROWS:
        return [_by_cell(job, known)] if known else []
    return [
        sheet
        for cell, figures in known.items()
        for sheet in (_latencies if cell.timed else _contenders)(job, cell, figures)
    ]


def _contenders(job: Job, cell: Cell, figures: CellFigures) -> list[Sheet]:
    scale = scale_of(job, cell)
    columns = [*_over_names(job), scale.rate_name, "by wall", scale.cpu_name]
    rows = {
        name: [
            *_over_cells(job, found),
            spread_text(found.rate.times(scale.rate), scale.rate_digits),
            (f"{found.wall_rate.median * scale.rate:.{scale.rate_digits}f}", ""),
            spread_text(found.cpu.times(scale.cpu), scale.cpu_digits),
            _median(found.kworkers and found.kworkers.times(scale.cpu), scale.cpu_digits),
            (NOTHING if found.cached is None else f"{found.cached.median:.1%}", ""),
            (NOTHING if found.rss_bytes is None else f"{found.rss_bytes / MIB:.0f}", ""),
        ]
        for name, found in figures.items()
    }
    columns += ["kernel threads", "page cache", "RSS MiB"]
    return [Sheet(cell_text(cell), columns, rows)]


def _latencies(job: Job, cell: Cell, figures: CellFigures) -> list[Sheet]:
    names = list(next(iter(figures.values())).latency_us)
    columns = [f"p{p}" for p in names]
    main = SHORT.get(job.over[0], job.over[0])
    ratios = {
        name: [ratio_text(found.latency_over.get(p)) for p in names]
        for name, found in figures.items()
    }
    values = {
        name: [spread_text(found.latency_us[p], 0) for p in names]
        for name, found in figures.items()
    }
    return [
        Sheet(f"{cell_text(cell)}: times {main}", columns, ratios),
        Sheet(f"{cell_text(cell)}: microseconds", columns, values),
    ]


def _by_cell(job: Job, known: dict[Cell, CellFigures]) -> Sheet:
    """Give each cell a row, for two contenders of which the one is the reference."""
    main = job.over[0]
    (other,) = (name for name in job.contenders if name != main)
    rows = {}
    for cell, figures in known.items():
        scale = scale_of(job, cell)
        pair = [figures.get(name) for name in (other, main)]
        rows[cell.name] = [
            ratio_text(pair[0].over.get(main) if pair[0] else None),
            *(spread_text(f.rate.times(scale.rate), scale.rate_digits) for f in pair if f),
            *(spread_text(f.cpu.times(scale.cpu), scale.cpu_digits) for f in pair if f),
        ]
    names = [SHORT.get(name, name) for name in (other, main)]
    scale = scale_of(job, job.cells[0])
    columns = [f"x {names[1]}"]
    columns += [f"{name} {unit}" for unit in (scale.rate_name, scale.cpu_name) for name in names]
    return Sheet("", columns, rows)


def _over_names(job: Job) -> list[str]:
    return [f"x {SHORT.get(name, name)}" for name in job.over]


def _over_cells(job: Job, found: Figures) -> list[CellText]:
    return [ratio_text(found.over.get(name)) for name in job.over]


def rich_table(sheet: Sheet) -> Table:
    """Draw a table for a terminal of 80 columns: the spread stands below its median."""
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("", no_wrap=True)
    for column in sheet.columns:
        table.add_column(NARROW.get(column, column), justify="right", overflow="fold")
    for name, cells in sheet.rows.items():
        table.add_row(
            name,
            *(f"{median}\n[dim]{spread}[/dim]" if spread else median for median, spread in cells),
        )
    return table


def markdown_table(sheet: Sheet) -> list[str]:
    """Write the same as lines of Markdown."""
    lines = [f"*{sheet.caption}*", ""] if sheet.caption else []
    lines.append("| | " + " | ".join(sheet.columns) + " |")
    lines.append("| --- |" + " ---: |" * len(sheet.columns))
    for name, cells in sheet.rows.items():
        texts = (f"{median} ({spread})" if spread else median for median, spread in cells)
        title = CONTENDERS[name].title if name in CONTENDERS else name
        lines.append(f"| {title} | " + " | ".join(texts) + " |")
    return [*lines, ""]


def ratio_text(ratio: Spread | None) -> CellText:
    """Say a ratio; a reference's own is 1 and has no spread."""
    if ratio is None:
        return NOTHING, ""
    if ratio.low == ratio.high == 1:
        return "1", ""
    return spread_text(ratio, 2 if ratio.high < TWO_DIGITS else 1)


def spread_text(spread: Spread, digits: int) -> CellText:
    """Say a median, and its spread where there is one."""
    median = f"{spread.median:.{digits}f}"
    if spread.count == 1:
        return median, ""
    return median, f"{spread.low:.{digits}f}-{spread.high:.{digits}f}"


def _median(spread: Spread | None, digits: int) -> CellText:
    return (NOTHING if spread is None else f"{spread.median:.{digits}f}"), ""
